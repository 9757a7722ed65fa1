/**
 * Fields of a query or an `application/x-www-form-urlencoded` body as the package qs reads them, which Express 4 uses for both:
 * `a[b]=1` -> {a: {b: '1'}}, `a[]=1&a[]=2` and `a=1&a=2` -> {a: ['1', '2']}.
 */
const DEPTH_MAX = 5;
const FIELDS_MAX = 1000;
/** A higher index makes an object, not a huge array. */
const INDEX_MAX = 20;

export function readFields(text) {
  const fields = {};
  let count = 0;
  for (const [name, value] of new URLSearchParams(text)) {
    if (++count > FIELDS_MAX) break;
    const path = readPath(name);
    // No field may reach what objects inherit.
    if (!path.some((key) => key in Object.prototype)) put(fields, path, value);
  }
  for (const key of Object.keys(fields)) fields[key] = finished(fields[key]);
  return fields;
}

/** `a[b][]` -> ['a', 'b', '']. What lies deeper than allowed stays one key. */
function readPath(name) {
  const start = name.indexOf('[');
  if (start <= 0) return [name];
  const path = [name.slice(0, start)];
  let rest = name.slice(start);
  while (path.length <= DEPTH_MAX) {
    const found = /^\[([^[\]]*)\]/.exec(rest);
    if (found === null) break;
    path.push(found[1]);
    rest = rest.slice(found[0].length);
  }
  if (rest !== '') path.push(rest);
  return path;
}

function put(target, [key, ...rest], value) {
  const known = Object.hasOwn(target, key) ? target[key] : undefined;
  if (rest.length === 0) {
    target[key] =
      known === undefined
        ? value
        : Array.isArray(known)
          ? [...known, value]
          : typeof known === 'object'
            ? { ...known, [value]: true }
            : [known, value];
  } else if (rest[0] === '' && rest.length === 1) {
    target[key] = known === undefined ? [value] : Array.isArray(known) ? [...known, value] : [known, value];
  } else {
    const inner =
      typeof known === 'object' && !Array.isArray(known)
        ? known
        : known === undefined
          ? {}
          : Object.fromEntries([].concat(known).entries());
    put(inner, rest, value);
    target[key] = inner;
  }
}

/** Objects whose keys are the numbers of an array become one. */
function finished(value) {
  if (typeof value !== 'object' || Array.isArray(value)) return value;
  const keys = Object.keys(value);
  for (const key of keys) value[key] = finished(value[key]);
  const isArray = keys.length > 0 && keys.every((key) => /^\d+$/.test(key) && Number(key) <= INDEX_MAX);
  return isArray ? keys.toSorted((a, b) => a - b).map((key) => value[key]) : value;
}
