import test from 'ava';
import { parseOptions, type Command } from '../../src/cli/options.ts';
import { FaasError } from '../../src/errors.ts';

const none = { workspace: undefined, config: undefined };
const serve = { ...none, host: undefined, port: undefined, debug: false };
const client = { url: undefined, key: undefined };

const READ: readonly (readonly [args: string, command: Command])[] = [
  ['', { command: 'serve', options: serve }],
  ['serve', { command: 'serve', options: serve }],
  [
    '-c f.yaml --workspace w --host 0.0.0.0 --port 0 --debug',
    { command: 'serve', options: { config: 'f.yaml', workspace: 'w', host: '0.0.0.0', port: 0, debug: true } },
  ],
  ['--config=f.yaml --port=8080', { command: 'serve', options: { ...serve, config: 'f.yaml', port: 8080 } }],
  ['--host ::1', { command: 'serve', options: { ...serve, host: '::1' } }],
  ['--check-system', { command: 'check-system', options: none }],
  ['--create-config -c x.yaml', { command: 'create-config', options: { ...none, config: 'x.yaml' } }],
  ['check', { command: 'check', options: none }],
  ['check dir', { command: 'check', options: { ...none, workspace: 'dir' } }],
  ['init dir', { command: 'init', options: { directory: 'dir' } }],
  ['keys create ci', { command: 'keys', options: { ...none, name: 'ci', scopes: ['invoke'] } }],
  [
    'keys create ci --scope manage,invoke --scope admin',
    { command: 'keys', options: { ...none, name: 'ci', scopes: ['invoke', 'manage', 'admin'] } },
  ],
  ['list --url http://h:1 --key k', { command: 'list', options: { url: 'http://h:1', key: 'k' } }],
  ['invoke hello', { command: 'invoke', options: { ...client, name: 'hello', data: undefined } }],
  ['invoke -d {"a":1} hello', { command: 'invoke', options: { ...client, name: 'hello', data: '{"a":1}' } }],
  ['invoke hello -d -5', { command: 'invoke', options: { ...client, name: 'hello', data: '-5' } }],
  ['invoke hello --data=@f', { command: 'invoke', options: { ...client, name: 'hello', data: '@f' } }],
  ['status', { command: 'status', options: client }],
  ['--help', { command: 'help', options: { topic: undefined } }],
  ['-h', { command: 'help', options: { topic: undefined } }],
  ['help', { command: 'help', options: { topic: undefined } }],
  ['help keys', { command: 'help', options: { topic: 'keys' } }],
  ['invoke --help', { command: 'help', options: { topic: 'invoke' } }],
  ['version', { command: 'version', options: {} }],
  ['--version', { command: 'version', options: {} }],
];

for (const [args, command] of READ) {
  test(`\`gitfaas ${args}\` is read`, (t) => t.deepEqual(parseOptions(args.split(' ').filter((word) => word !== '')), command));
}

const REFUSED: readonly (readonly [args: string, detail: string])[] = [
  ['--prot 80', 'There is no flag "--prot"; did you mean --port?'],
  ['--nonsense', 'There is no flag "--nonsense".'],
  ['-x', 'There is no flag "-x".'],
  ['--constructor', 'There is no flag "--constructor".'],
  ['srve', 'There is no command "srve"; did you mean serve?'],
  ['help lst', 'There is no command "lst"; did you mean list?'],
  ['--port', '--port needs a value.'],
  ['--port --debug', '--port needs a value.'],
  ['--port 80a', '--port "80a" is not a port from 0 to 65535.'],
  ['--port 65536', '--port "65536" is not a port from 0 to 65535.'],
  ['--port -1', '--port "-1" is not a port from 0 to 65535.'],
  ['--host a/b', '--host "a/b" is not an address or a host name.'],
  ['--debug=yes', '--debug takes no value.'],
  ['--port 1 --port 2', '--port is there twice.'],
  ['--config=', 'The value of --config is empty.'],
  ['list --port 1', '`gitfaas list` has no flag --port; it belongs to serve.'],
  ['serve dir', '`gitfaas serve` takes no "dir".'],
  ['check a b', '`gitfaas check` takes no "b".'],
  ['check a --workspace b', 'Name the workspace once: as DIR or with --workspace.'],
  ['init', '`gitfaas init` needs DIR.'],
  ['invoke', '`gitfaas invoke` needs NAME.'],
  ['keys', '`gitfaas keys` needs create NAME.'],
  ['keys delete x', '`gitfaas keys` knows only `create`, not "delete".'],
  ['keys create x --scope mange', '"mange" is not a scope: they are invoke, manage, admin; did you mean manage?'],
];

for (const [args, detail] of REFUSED) {
  test(`\`gitfaas ${args}\` is a usage error with advice`, (t) => {
    const error = t.throws(() => parseOptions(args.split(' ')), { instanceOf: FaasError });
    t.is(error?.code, 'usage');
    t.is(error?.detail, detail);
  });
}
