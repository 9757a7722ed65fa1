import test from 'ava';
import fc from 'fast-check';
import { duplicateMistake, parseRequirement } from '../../src/config/requirement.ts';

test('a requirement is read whole and written in one spelling', (t) => {
  const rows: [string, string, boolean][] = [
    ['requests==2.28.0', 'requests==2.28.0', true],
    ['  Requests == 2.28.0 ', 'requests==2.28.0', true],
    ['Foo.Bar__baz', 'foo-bar-baz', false],
    ['a', 'a', false],
    ['x[Extra_One, b] >=1, <2', 'x[b,extra-one]<2,>=1', false],
    ['numpy ~=1.26', 'numpy~=1.26', false],
    ['x!=1.0.*,>=0.9rc1', 'x!=1.0.*,>=0.9rc1', false],
    ['x==1.*', 'x==1.*', false],
    ['x===weird-1', 'x===weird-1', true],
    ['x==1!2.0.post1.dev3+local.7', 'x==1!2.0.post1.dev3+local.7', true],
    ['tomli>=1; python_version < "3.11"', 'tomli>=1 ; python_version < "3.11"', false],
    [
      "x;(os_name=='posix' or 'linux' in sys_platform) and python_version>='3.8'",
      "x ; (os_name=='posix' or 'linux' in sys_platform) and python_version>='3.8'",
      false,
    ],
    ['x ; platform_machine not in "arm64 aarch64"', 'x ; platform_machine not in "arm64 aarch64"', false],
  ];
  for (const [text, normalised, isPinned] of rows) {
    const { requirement, problem } = parseRequirement(text);
    t.is(problem, undefined, text);
    t.deepEqual([requirement?.text, requirement?.isPinned], [normalised, isPinned], text);
    t.is(parseRequirement(normalised).requirement?.text, normalised, 'what is printed reads the same');
  }
});

test('what is no package of the index is refused, with what was meant where that can be told', (t) => {
  const rows: [string, RegExp][] = [
    ['', /empty/],
    ['--index-url=https://evil.example', /option of the installer/],
    ['-r other.txt', /option/],
    ['-e .', /option/],
    ['-i', /option/],
    ['git+https://example.org/x.git', /URL/],
    ['https://example.org/x.whl', /URL/],
    ['file:///etc/passwd', /URL/],
    ['x @ file:///tmp/x.whl', /direct reference/],
    ['x@https://example.org/x.whl', /direct reference/],
    ['x[a] @ https://example.org', /direct reference/],
    ['./x', /path/],
    ['../x', /path/],
    ['/x', /path/],
    ['~/x', /path/],
    ['x/y', /path/],
    ['x\\y', /path/],
    ['x-1.0-py3-none-any.whl', /path/],
    ['x-1.0.tar.gz', /path/],
    ['requests=2.28', /did you mean requests==2\.28\?/],
    ['requests 2.28', /did you mean requests==2\.28\?/],
    ['requests==', /no comparison/],
    ['requests==2.28 --hash=sha256:00', /no comparison/],
    ['x==1 2', /no comparison/],
    ['x=>1', /no comparison/],
    ['x==abc', /no version/],
    ['x>1.*', /== and != only/],
    ['x~=1', /two parts/],
    ['x==1,', /no comparison/],
    ['x[', /extras/],
    ['x[a;b]', /extras/],
    ['x[-a]', /extras/],
    ['x; python_version', /condition/],
    ['x; python_version < 3', /condition/],
    ['x; import os', /condition/],
    ['x; "a" == "b"', /condition/],
    ['x; python_version < "3" or', /condition/],
    [`x; ${'('.repeat(40)}os_name == "a"${')'.repeat(40)}`, /condition/],
    ['x; extra == "y"', /condition/],
    ['x;', /condition/],
    ['_x', /does not begin with the name/],
    ['x-', /no comparison/],
    ['$(touch /tmp/x)', /path|does not begin/],
    ['x;rm -rf /', /condition/],
    ['x|y', /no comparison/],
    ['x`id`', /no comparison/],
    ['x\0', /U\+0000/],
    ['x\n--index-url=y', /U\+000A/],
    ['reqυests', /U\+03C5/],
    ['x\u200b', /U\+200B/],
    ['x'.repeat(600), /longer than/],
  ];
  for (const [text, expected] of rows) t.regex(parseRequirement(text).problem ?? 'accepted', expected, JSON.stringify(text));
});

test('the same package twice is refused, unless each time under a condition', (t) => {
  const read = (text: string) => parseRequirement(text).requirement!;
  t.is(duplicateMistake([read('a==1')], read('b')), undefined);
  t.regex(duplicateMistake([read('A.b==1')], read('a_B')) ?? '', /a-b is there twice/);
  t.is(duplicateMistake([read('a==1; python_version<"3.9"')], read('a==2; python_version>="3.9"')), undefined);
  t.truthy(duplicateMistake([read('a==1; python_version<"3.9"')], read('a==2')));
});

test('whatever is accepted is one line of plain ASCII that begins with a name', (t) => {
  const alphabet = fc.constantFrom(...'ab1.-_[]<>=!~,;@ /\\:\n\t"\'()#$`\0é'.split(''));
  fc.assert(
    fc.property(fc.array(alphabet, { maxLength: 24 }), (characters) => {
      const { requirement } = parseRequirement(characters.join(''));
      return requirement === undefined || /^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?![a-z0-9-])[ -~\t]*$/.test(requirement.text);
    }),
    { numRuns: 5000 },
  );
  t.pass();
});
