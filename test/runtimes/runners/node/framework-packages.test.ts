import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import anyTest from 'ava';
import { bodyText, NodeRunner, type NodeCallOptions } from '../../../support/node-runner-harness.ts';
import { testNeeding } from '../../../support/requirements.ts';

const test = testNeeding('the npm registry');
const directory = mkdtempSync(join(tmpdir(), 'framework-packages-'));
anyTest.after.always(() => rmSync(directory, { recursive: true, force: true }));

/** `node_modules` with these packages; made once. */
function installed(...packages: readonly string[]): string {
  const at = join(directory, packages.join('+').replaceAll('/', '-'));
  mkdirSync(at, { recursive: true });
  const args = ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--no-package-lock', '--prefix', at, ...packages];
  const { status, stderr } = spawnSync('npm', args, { cwd: at, encoding: 'utf8' });
  if (status !== 0) throw new Error(`npm install: ${stderr}`);
  return join(at, 'node_modules');
}

const JSON_TYPE = ['Content-Type', 'application/json'];
const APPLICATION = `
const express = require('express');
const app = express();
app.use(express.json());
app.use(express.urlencoded({ extended: true }));
app.get('/hello/:name', (req, res) => res.cookie('seen', '1').send('Hello ' + req.params.name + ' ' + (req.query.greeting ?? '')));
app.post('/json', (req, res) => res.status(201).json({ got: req.body, raw: String(req.rawBody) }));
app.post('/raw', express.raw({ type: '*/*' }), (req, res) => res.type('txt').send(String(req.body)));
app.get('/stream', (req, res) => { res.write('a'); setTimeout(() => res.end('b'), 5); });
app.get('/redirect', (req, res) => res.redirect('/elsewhere'));
app.get('/throw', () => { throw new Error('thrown inside'); });
app.get('/ip', (req, res) => res.json([req.protocol, req.hostname, req.ip ?? null, req.xhr]));
const router = express.Router();
router.get('/:id', (req, res) => res.send(req.baseUrl + ' ' + req.params.id + ' ' + req.originalUrl));
app.use('/nested', router);
exports.api = app;
`;
const CALLS: readonly (readonly [string, NodeCallOptions, number, RegExp])[] = [
  ['route', { method: 'GET', path: '/hello/Ada', query: 'greeting=hi' }, 200, /^Hello Ada hi$/],
  ['JSON', { path: '/json', body: '{"a":1}', headers: JSON_TYPE }, 201, /^\{"got":\{"a":1\},"raw":"\{\\"a\\":1\}"\}$/],
  ['raw', { path: '/raw', body: 'abc', headers: ['Content-Type', 'x/y', 'Content-Length', '3'] }, 200, /^abc$/],
  ['redirect', { method: 'GET', path: '/redirect' }, 302, /Redirecting to \/elsewhere/],
  ['nothing', { method: 'GET', path: '/nowhere' }, 404, /Cannot GET \/nowhere/],
  ['exception', { method: 'GET', path: '/throw' }, 500, /thrown inside/],
  ['nested', { method: 'GET', path: '/nested/7', query: 'a=1' }, 200, /^\/nested 7 \/nested\/7\?a=1$/],
  ['request', { method: 'GET', path: '/ip', headers: ['Host', 'example.org:1'] }, 200, /^\["http","example\.org",null,false\]$/],
];

for (const version of ['4', '5']) {
  test(`an Express ${version} application is a handler`, async (t) => {
    const dependencies = installed(`express@${version}`);
    await using runner = await NodeRunner.start(
      { 'index.js': APPLICATION },
      { dependencies, signature: 'http', callable: 'api' },
    );
    for (const [title, options, status, text] of CALLS) {
      const frame = await runner.call(options);
      t.is(frame?.name, 'ANSWER', `${title} ${JSON.stringify(frame?.json)} ${runner.raw}`);
      t.is(frame?.json['status'], status, title);
      t.regex(bodyText(frame), text, title);
    }
    t.is((await runner.call({ method: 'GET', path: '/stream' }))?.name, 'ANSWER_HEAD');
    t.is((await runner.rest()).text, 'ab');
  });
}

test('functions that bring the functions framework register with their own copy of it', async (t) => {
  const dependencies = installed('@google-cloud/functions-framework@5.0.5');
  const source = `
const functions = require('@google-cloud/functions-framework');
if (require.resolve('@google-cloud/functions-framework').endsWith('framework.mjs')) throw new Error('not the real one');
functions.http('hello', (req, res) => res.send('Hello ' + (req.query.name || req.body.name || 'World')));
functions.cloudEvent('event', (event) => ({ type: event.type, data: event.data }));`;
  await using http = await NodeRunner.start({ 'index.js': source }, { dependencies, callable: 'hello' });
  t.is(bodyText(await http.call({ method: 'GET' })), 'Hello World');
  t.is(bodyText(await http.call({ body: '{"name":"Ada"}', headers: JSON_TYPE })), 'Hello Ada');
  await using event = await NodeRunner.start({ 'index.js': source }, { dependencies, callable: 'event' });
  const headers = ['ce-id', '1', 'ce-source', '/s', 'ce-type', 't', 'ce-specversion', '1.0', ...JSON_TYPE];
  t.deepEqual(await event.json({ headers, body: '{"a":1}' }), { type: 't', data: { a: 1 } });
  const esm = "import { http } from '@google-cloud/functions-framework'; http('hello', (req, res) => res.send('x'));";
  await using module = await NodeRunner.start({ 'index.mjs': esm }, { dependencies, callable: 'hello' });
  t.is(bodyText(await module.call()), 'x');
});

test('packages that functions often use run: a multipart parser, http-errors, CORS, compression', async (t) => {
  const dependencies = installed('busboy@1', 'http-errors@2', 'cors@2', 'compression@1');
  const source = `
const createError = require('http-errors');
const busboy = require('busboy');
const cors = require('cors')({ origin: true });
const compression = require('compression')({ threshold: 0 });
exports.form = (req, res) => {
  const fields = {};
  const parser = busboy({ headers: req.headers });
  parser.on('field', (name, value) => (fields[name] = value)).on('close', () => res.json(fields));
  if (req.path === '/pipe') req.pipe(parser); else parser.end(req.rawBody);
};
exports.native = (request) => { throw createError(409, 'taken'); };
exports.cors = (req, res) => cors(req, res, () => res.send('x'));
exports.small = (req, res) => compression(req, res, () => { res.type('txt'); res.send('x'.repeat(100)); });`;
  const start = async (callable: string, signature: string | null) =>
    await NodeRunner.start({ 'index.js': source }, { dependencies, callable, signature });
  await using form = await start('form', 'http');
  const body = '--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n';
  for (const path of ['/pipe', '/raw'])
    t.deepEqual(await form.json({ path, body, headers: ['Content-Type', 'multipart/form-data; boundary=b'] }), { a: '1' });
  await using native = await start('native', null);
  const conflict = await native.call();
  t.is(conflict?.json['status'], 409);
  t.is(bodyText(conflict), 'taken');
  await using shared = await start('cors', 'http');
  const answer = await shared.call({ headers: ['Origin', 'https://example.org'] });
  t.true((answer?.json['headers'] as string[]).includes('https://example.org'));
  await using small = await start('small', 'http');
  t.is((await small.call({ method: 'GET', headers: ['Accept-Encoding', 'gzip'] }))?.name, 'ANSWER_HEAD');
  t.is((await small.rest()).end?.name, 'ANSWER_END');
});
