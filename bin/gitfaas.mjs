#!/usr/bin/env node
// The command of a checkout (`npm link`): plain JavaScript, because it may be started by an older Node than the daemon needs.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const top = dirname(dirname(fileURLToPath(import.meta.url)));
const main = join(top, 'src', 'main.ts');
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
if (major > 24 || (major === 24 && minor >= 12)) {
  await import(main);
} else {
  const own = join(top, 'node_modules', '.bin', 'node');
  if (!existsSync(own)) {
    process.stderr.write(`gitfaas: Node ${process.versions.node} is too old, 24.12 is needed; run \`npm ci --ignore-scripts\` in ${top}, which brings one.\n`);
    process.exit(1);
  }
  const child = spawn(own, [main, ...process.argv.slice(2)], { stdio: 'inherit' });
  // A terminal sends these two to the child as well; passed on, they would count as the second one, which stops at once.
  const ofTerminal = process.stdin.isTTY ? ['SIGINT', 'SIGHUP'] : [];
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => {
      if (!ofTerminal.includes(signal)) child.kill(signal);
    });
  }
  child.on('error', (error) => {
    process.stderr.write(`gitfaas: ${own} cannot be started: ${error.message}\n`);
    process.exitCode = 1;
  });
  child.on('exit', (code) => {
    process.exitCode = code ?? 1;
  });
}
