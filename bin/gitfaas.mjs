#!/usr/bin/env node
// The command of an installed package: plain JavaScript, because Node does not strip types below node_modules.
import { existsSync } from 'node:fs';

const compiled = new URL('../dist/main.js', import.meta.url);
await import(existsSync(compiled) ? compiled.href : new URL('../src/main.ts', import.meta.url).href);
