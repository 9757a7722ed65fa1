'use strict';
// The pre-receive and post-receive hook: tells the daemon what is pushed, shows the pusher what it says, exits as it says.
// CommonJS and three small built-ins, because every push waits twice for this program to start.
//
// node hook.cjs pre-receive|post-receive     run by git, cwd is the Git directory, refs on standard input
//   to the daemon:   one line of JSON {hook, nonce, stdin, options, environment}
//   from the daemon: lines of JSON {say: text} and at the end {exit: 0|1}
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');

const hook = process.argv[2];
const environment = process.env;
const socketPath = environment.GITFAAS_HOOK_SOCKET ?? '/nonexistent/hook.sock';
const unanswered = {
  'pre-receive': 'gitfaas: the daemon cannot be reached, so nothing was accepted. Start it, then push again.',
  'post-receive':
    'gitfaas: YOUR PUSH IS STORED, BUT IT IS NOT CONFIRMED THAT IT IS LIVE: the daemon cannot be reached.\n' +
    'gitfaas: start it, or ask it with GET /status.',
};

function show(text) {
  try {
    fs.writeSync(1, `${text}\n`);
  } catch {
    // The pusher is gone; the decision stays the same.
  }
}

function end(exitCode) {
  process.exit(exitCode);
}

function endUnanswered() {
  show(unanswered[hook]);
  end(1);
}

const stdin = fs.readFileSync(0, 'utf8');
const options = [];
for (let index = 0; index < Number(environment.GIT_PUSH_OPTION_COUNT ?? 0); index += 1) {
  options.push(environment[`GIT_PUSH_OPTION_${index}`] ?? '');
}
const message = {
  hook,
  nonce: environment.GITFAAS_HOOK_NONCE ?? '',
  stdin,
  options,
  environment: {
    GIT_OBJECT_DIRECTORY: environment.GIT_OBJECT_DIRECTORY,
    GIT_ALTERNATE_OBJECT_DIRECTORIES: environment.GIT_ALTERNATE_OBJECT_DIRECTORIES,
    GIT_QUARANTINE_PATH: environment.GIT_QUARANTINE_PATH,
  },
};

try {
  // A socket's path may have only 107 bytes, so it is named from within its directory.
  process.chdir(path.dirname(socketPath));
} catch {
  endUnanswered();
}
const socket = net.connect(path.basename(socketPath));
socket.setEncoding('utf8');
socket.on('error', endUnanswered);
socket.on('end', endUnanswered);
socket.write(`${JSON.stringify(message)}\n`);
let pending = '';
socket.on('data', (chunk) => {
  const lines = (pending + chunk).split('\n');
  pending = lines.pop();
  for (const line of lines) {
    const answer = JSON.parse(line);
    if (answer.say !== undefined) show(answer.say);
    else end(answer.exit === 0 ? 0 : 1);
  }
});
