/**
 * Entry of the Node runner. *Booted* ahead of need, it knows no function: it says so with one byte on descriptor 4 and waits
 * there for its order (SPECIALISE, with a length before it). Descriptor 3, the channel, is its own only after that.
 */
import { closeSync, readSync, writeSync } from 'node:fs';
import module from 'node:module';
import os from 'node:os';
import { Channel } from './channel.mjs';
import { describe } from './failure.mjs';
import { hookImports } from './framework-registry.mjs';
import { FRAME, readUint32 } from './frames.mjs';
import { importFailed, InitFailed, load, noteModule } from './loading.mjs';
import { allocUnsafeSlow, exit, now, parse, textOf } from './originals.mjs';
import { rehearse } from './rehearsal.mjs';
import { EXIT_PROTOCOL, Runner } from './runner.mjs';
import { adapt } from './signature.mjs';

const CHANNEL = 3;
const HAND_OVER = 4;
const EXIT_SANDBOX_FAILED = 70;
const EXIT_INIT_FAILED = 71;

giveProcessors();
await rehearse();
writeSync(HAND_OVER, 'b');
const order = readOrder();
if (order === null) exit(0);
await become(order);

/** null at an end of file before it. */
function readOrder() {
  const length = readExactly(4);
  if (length === null) return null;
  const text = readExactly(readUint32(length, 0));
  closeSync(HAND_OVER);
  return text === null ? null : parse(textOf(text));
}

function readExactly(count) {
  const bytes = allocUnsafeSlow(count);
  for (let at = 0; at < count;) {
    const read = readSync(HAND_OVER, bytes, at, count - at, null);
    if (read === 0) return null;
    at += read;
  }
  return bytes;
}

async function become(order) {
  const beganMs = now();
  let isLoading = true;
  const channel = new Channel(CHANNEL, {
    frame(type, call, payload, isOwn) {
      try {
        if (isLoading) throw new Error('a frame before READY');
        runner.hear(type, call, payload, isOwn);
      } catch (error) {
        runner.output.say(0, `[gitfaas] the instance leaves: ${describe(error)}`);
        exit(EXIT_PROTOCOL);
      }
    },
    ended: () => exit(0),
    broken: () => exit(EXIT_PROTOCOL),
  });
  const runner = new Runner(channel);
  channel.open();
  try {
    process.chdir(order.code);
  } catch (error) {
    channel.sendJson(FRAME.SANDBOX_FAILED, 0, { step: 'code', errno: -error.errno, detail: error.code });
    exit(EXIT_SANDBOX_FAILED);
  }
  setUpProcess(order, runner.output);
  const fail = (failure) => {
    isLoading = false;
    runner.flush();
    channel.sendJson(FRAME.INIT_FAILED, 0, failure.facts);
    exit(EXIT_INIT_FAILED);
  };
  process.on('exit', (code) => {
    if (!isLoading) return runner.flush();
    const error = new Error(`the module ended the process while it was imported (${code})`);
    fail(new InitFailed('exit', error.message, { ...importFailed(error, order.code).facts, exception: null }));
  });
  process.on('uncaughtException', (error) => {
    if (isLoading) fail(importFailed(error, order.code));
    // A function that has a listener of its own has decided for itself.
    else if (process.listenerCount('uncaughtException') === 1) runner.uncaught(error);
  });
  try {
    const { handler, signature, isStreaming } = await load(order.code, order.module, order.callable);
    runner.serve({
      invoke: await adapt(handler, signature ?? order.signature),
      isStreaming,
      isConcurrent: order.concurrent === true,
      responseMaxBytes: order.max_response_bytes,
    });
  } catch (error) {
    return fail(error instanceof InitFailed ? error : importFailed(error, order.code));
  }
  isLoading = false;
  runner.flush();
  channel.sendJson(FRAME.READY, 0, { phases: { ...order.phases, handler: now() - beganMs } });
}

/** In the sandbox Node finds nothing about processors; pools of threads are made as large as this list. */
function giveProcessors() {
  const { cpus } = os;
  const nothing = { user: 0, nice: 0, sys: 0, idle: 0, irq: 0 };
  os.cpus = () => {
    const known = cpus();
    if (known.length > 0) return known;
    return Array.from({ length: os.availableParallelism() }, () => ({ model: 'unknown', speed: 0, times: { ...nothing } }));
  };
  module.syncBuiltinESMExports();
}

/** What was booted for any function becomes this one's. */
function setUpProcess(order, output) {
  const { env } = process;
  env.FUNCTION_NAME = order.function;
  env.FUNCTION_VERSION = order.version;
  env.FUNCTION_TARGET = order.callable;
  env.FUNCTION_SIGNATURE_TYPE = order.signature ?? 'http';
  for (const name of Object.keys(order.environment)) env[name] = order.environment[name];
  output.install();
  hookImports(order.dependencies ?? null, noteModule);
  if (order.compile_cache) module.enableCompileCache(order.compile_cache);
}
