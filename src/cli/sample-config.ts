/** The schema beside a workspace's own file, for editors with a YAML language server. */
export const MODELINE = '# yaml-language-server: $schema=./schemas/faas-config.schema.json\n';

const SYSTEM = `# Configuration of gitfaas. Every key may be left out; what stands here in comments is the default.
# A saved edit is live at once: limits change without restarting an instance.

system:
  # host: 127.0.0.1               # start only; other than loopback needs a key below
  # api_gateway_port: 8000        # start only; 0 picks a free port
  # default_mode: process
  # max_concurrent_functions: 1000  # live instances of all functions together
  # cold_start_timeout: 30        # seconds; also 500ms, 30s, 5m
  # warm_instance_ttl: 600        # an instance without calls for this long is stopped
  # max_body_size: 10Mi
  # function_storage_path: .gitfaas   # start only; all state, kept out of Git
  # process_isolation_level: auto # start only; strict, standard, none or auto (the strongest this host gives)
  # logging_level: INFO           # DEBUG, INFO, WARNING, ERROR, CRITICAL

# auth:                           # written by \`gitfaas keys create NAME\`
#   keys:
#     - name: ci
#       sha256: <SHA-256 of the key>
#       scopes: [invoke, manage]  # invoke, manage, admin
#       rate_limit: {requests_per_second: 50, burst: 100}

# git:
#   branch: main                  # default: the branch that is checked out at the start

`;

const ENTRY_KEYS = [
  'runtime: python3              # or exactly python3.11; node, node24, … for handler.mjs, .js, .ts',
  'handler: handle               # in handler.py; module.callable names another file',
  'timeout: 30                   # seconds; also 500ms, 30s, 5m',
  'memory: 256Mi',
  'cpu_limit: 100m               # a tenth of one CPU; default: no limit',
  'pids: 64                      # processes and threads',
  'tmp_size: 64Mi                # private /tmp',
  "environment: {DEBUG: 'false'} # texts only: quote numbers, true and false",
  'min_instances: 0              # kept started without calls',
  'max_instances: 10',
  'max_queue: 256                # calls that may wait for an instance',
  'queue_timeout: 5',
  'concurrency: 1                # calls that one instance runs at a time',
  'dependencies: []              # requests==2.32.3, …; or a requirements.txt, or a package-lock.json beside the handler',
  'network_allow: []             # private addresses that `network: egress`, the default, reaches all the same',
];

/** A commented configuration; with an entry for each of `functions`, since an entry without a directory is an error. */
export function sampleConfig(functions: readonly string[]): string {
  const [first, ...others] = functions;
  const comments = ENTRY_KEYS.map((line) => `${first === undefined ? '#' : ' '}   # ${line}\n`).join('');
  if (first === undefined)
    return `${SYSTEM}# functions:                      # the code is in functions/<name>/\n#   my-function:\n${comments.replaceAll('#   # ', '#     ')}`;
  return `${SYSTEM}functions:                        # the code is in functions/<name>/\n  ${first}:\n${comments}${others.map((name) => `  ${name}:\n`).join('')}`;
}
