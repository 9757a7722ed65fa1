// Runs before `npm start` and `npm test`, possibly under an old system Node: installs the locked dependencies when they
// are missing or older than the lock file. Plain JavaScript without dependencies, Node 18 or later.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const top = dirname(dirname(fileURLToPath(import.meta.url)));
const lock = join(top, 'package-lock.json');
const modules = join(top, 'node_modules');
const stamp = join(modules, '.gitfaas-lock');

// An installed package has no lock file of ours: its own installer brought the dependencies.
if (existsSync(lock)) {
  const wanted = createHash('sha256').update(readFileSync(lock)).digest('hex');
  const present = existsSync(stamp) ? readFileSync(stamp, 'utf8') : '';
  // Without the binary `node` of this checkout, npm scripts would fall back to whatever Node the machine has.
  if (present !== wanted || !existsSync(join(modules, '.bin', 'node'))) {
    process.stderr.write('gitfaas: installing the locked dependencies (npm ci) ...\n');
    const npm = process.env.npm_execpath;
    const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
    const result = npm
      ? spawnSync(process.execPath, [npm, ...args], { cwd: top, stdio: ['ignore', 2, 2] })
      : spawnSync('npm', args, { cwd: top, stdio: ['ignore', 2, 2] });
    if (result.status !== 0) {
      process.stderr.write(
        `gitfaas: npm ci failed (${result.error ? result.error.message : `exit code ${result.status}`}); see its output above.\n`,
      );
      process.exit(1);
    }
    writeFileSync(stamp, wanted);
  }
}
