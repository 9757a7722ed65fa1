/** Media types as Express speaks of them: `json`, `html`, `image/*`; and what a header accepts. */

const BY_EXTENSION = {
  html: 'text/html',
  txt: 'text/plain',
  text: 'text/plain',
  css: 'text/css',
  csv: 'text/csv',
  md: 'text/markdown',
  ics: 'text/calendar',
  js: 'text/javascript',
  mjs: 'text/javascript',
  xml: 'application/xml',
  json: 'application/json',
  jsonld: 'application/ld+json',
  bin: 'application/octet-stream',
  pdf: 'application/pdf',
  zip: 'application/zip',
  gz: 'application/gzip',
  wasm: 'application/wasm',
  urlencoded: 'application/x-www-form-urlencoded',
  form: 'application/x-www-form-urlencoded',
  multipart: 'multipart/*',
  png: 'image/png',
  jpg: 'image/jpeg',
  jpeg: 'image/jpeg',
  gif: 'image/gif',
  svg: 'image/svg+xml',
  webp: 'image/webp',
  avif: 'image/avif',
  ico: 'image/vnd.microsoft.icon',
  mp3: 'audio/mpeg',
  mp4: 'video/mp4',
  webm: 'video/webm',
  woff: 'font/woff',
  woff2: 'font/woff2',
};

/** `html` or `.html` -> `text/html`; a media type stays as it is. */
export function toMediaType(name) {
  if (name.includes('/')) return name;
  return BY_EXTENSION[name.slice(name.lastIndexOf('.') + 1).toLowerCase()] ?? 'application/octet-stream';
}

/** The value of Content-Type with the charset that Express adds to texts. */
export function withCharset(type) {
  const mediaType = baseOf(type);
  const isText = mediaType.startsWith('text/') || mediaType === 'application/json' || mediaType === 'application/javascript';
  return isText && !/;\s*charset\s*=/i.test(type) ? `${type}; charset=utf-8` : type;
}

export function baseOf(type) {
  return type.split(';', 1)[0].trim().toLowerCase();
}

/** The first of `wanted` that the type of a body is, or false. `*` and `+json` work as in the package type-is. */
export function matchType(type, wanted) {
  const actual = baseOf(type);
  for (const each of wanted) {
    const pattern = each.startsWith('+') ? `*/*${each}` : toMediaType(each);
    if (!matches(actual, pattern)) continue;
    return each.startsWith('+') || pattern.includes('*') ? actual : each;
  }
  return false;
}

function matches(actual, pattern) {
  const [type, subtype] = actual.split('/');
  const [wantedType, wantedSubtype] = pattern.toLowerCase().split('/');
  if (wantedType !== '*' && wantedType !== type) return false;
  if (wantedSubtype.startsWith('*+')) return subtype?.endsWith(wantedSubtype.slice(1)) === true;
  return wantedSubtype === '*' || wantedSubtype === subtype;
}

/** Of `offered` what the header likes best (in doubt, what is offered first), or false. An absent header likes everything. */
export function preferred(header, offered, isType = false) {
  if (header === undefined) return offered[0] ?? false;
  const ranges = readRanges(header);
  let best = false;
  let bestQuality = 0;
  for (const each of offered) {
    const quality = qualityOf(ranges, isType ? toMediaType(each).toLowerCase() : each.toLowerCase(), isType);
    if (quality > bestQuality) [best, bestQuality] = [each, quality];
  }
  return best;
}

/** What the header names, the most liked first. */
export function accepted(header) {
  const liked = readRanges(header ?? '*').filter(({ quality }) => quality > 0);
  return liked.toSorted((a, b) => b.quality - a.quality).map(({ range }) => range);
}

function readRanges(header) {
  return header.split(',').map((part) => {
    const [range, ...parameters] = part.split(';').map((piece) => piece.trim().toLowerCase());
    const quality = parameters.find((parameter) => parameter.startsWith('q='));
    return { range, quality: quality === undefined ? 1 : Number(quality.slice(2)) || 0 };
  });
}

/** By the most exact range that names it. */
function qualityOf(ranges, value, isType) {
  let quality = 0;
  let exactness = -1;
  for (const each of ranges) {
    const found = isType
      ? exactnessOfType(each.range, value)
      : each.range === value
        ? 2
        : value.startsWith(`${each.range}-`)
          ? 1
          : each.range === '*'
            ? 0
            : -1;
    if (found > exactness) [exactness, quality] = [found, each.quality];
  }
  return quality;
}

function exactnessOfType(range, type) {
  if (range === type) return 2;
  if (range === '*/*' || range === '*') return 0;
  return range.endsWith('/*') && type.startsWith(range.slice(0, -1)) ? 1 : -1;
}
