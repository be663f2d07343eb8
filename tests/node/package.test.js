// The package as its users see it: what is packed, its types, its exports, its examples; and what becomes of a panic.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

import { publint } from 'publint';
import { formatMessage } from 'publint/utils';

import { clientAuth, startAuthorizationServer } from '../gateway/support/authorization_server.js';
import { bearer, request } from '../gateway/support/client.js';
import { ROOT, eventually, folder } from '../gateway/support/parts.js';
import { ALICE, CONSUMERS, assertRefused } from '../gateway/support/scene.js';
import { managed, startUpstream } from '../gateway/support/upstream.js';
import { require } from './support/servers.js';

const run = promisify(execFile);
const PROJECT = process.env.TOKENWARD_NODE_PROJECT ?? join(ROOT, 'target/node-tests');
const PACKAGE = realpathSync(dirname(require.resolve('tokenward/package.json')));
const TARGET = process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target');

test('examples and every public declaration are good under tsc --strict', async () => {
  const types = join(PROJECT, 'types');
  rmSync(types, { recursive: true, force: true });
  mkdirSync(types);
  cpSync(join(import.meta.dirname, 'types'), types, { recursive: true });
  for (const name of ['gateway.js', 'express.js', 'fastify.js']) cpSync(join(ROOT, 'examples/node', name), join(types, name));
  // As a CommonJS module and as an ES module.
  cpSync(join(types, 'public.test-d.ts'), join(types, 'public.test-d.mts'));
  writeFileSync(join(types, 'package.json'), '{"type": "commonjs"}');
  await run(process.execPath, [join(PROJECT, 'node_modules/typescript/bin/tsc'), '-p', types]).catch((error) => assert.fail(error.stdout));
});

test('every public name is used by the test of the types', () => {
  const used = readFileSync(join(import.meta.dirname, 'types/public.test-d.ts'), 'utf8');
  for (const file of ['index', 'express', 'fastify', 'proxy']) {
    const declared = readFileSync(join(PACKAGE, `lib/${file}.d.ts`), 'utf8');
    const names = [...declared.matchAll(/^export (?:declare )?(?:abstract )?(?:class|function|const|type|interface) (\w+)/gm)].map(([, name]) => name);
    assert.ok(names.length > 0);
    // What others have to bring is used by giving it.
    const given = ['Decided', 'Dispatcher', 'FetchResponse'];
    for (const name of names.filter((one) => one !== 'Decided')) assert.ok(new RegExp(`\\b${name}\\b`).test(used), `${name} of ${file}`);
    for (const [text, name] of declared.matchAll(/^export (?:declare )?(?:abstract )?(?:class|interface) (\w+)[^]*?^}/gm)) {
      if (given.includes(name)) continue;
      for (const [, method] of text.matchAll(/^ {2}(?:static )?(\w+)\(/gm)) {
        assert.ok(method === 'constructor' || new RegExp(`\\b${method}\\(`).test(used), `${name}.${method}() of ${file}`);
      }
    }
  }
});

test('what the package exports is what consumers find', async () => {
  const { messages, pkg } = await publint({ pkgDir: PACKAGE, pack: false, strict: true });
  assert.deepEqual(messages.map((message) => formatMessage(message, pkg)), []);
});

test('the package holds its own files and nothing else', async () => {
  const { stdout } = await run('npm', ['pack', '--dry-run', '--json', '--ignore-scripts', PACKAGE], { cwd: PROJECT });
  const [{ files }] = JSON.parse(stdout);
  for (const { path } of files) assert.match(path, /^(lib\/[a-z]+(\.d)?\.(js|mjs|ts|mts)|package\.json|README\.md|LICENSE-(APACHE|MIT))$/);
  const manifest = JSON.parse(readFileSync(join(PACKAGE, 'package.json'), 'utf8'));
  const platform = JSON.parse(readFileSync(join(ROOT, 'bindings/node/npm/linux-x64-gnu/package.json'), 'utf8'));
  assert.equal(manifest.optionalDependencies[platform.name], platform.version);
  assert.equal(manifest.version, platform.version);
  const cargo = readFileSync(join(ROOT, 'Cargo.toml'), 'utf8');
  assert.match(cargo, new RegExp(`^version = "${manifest.version}"$`, 'm'));
  for (const lock of ['tests/node/package-lock.json', 'tests/gateway/package-lock.json']) {
    assert.doesNotMatch(readFileSync(join(ROOT, lock), 'utf8'), /"resolved"/);
  }
});

test('a panic is an exception to JavaScript, and a refusal to a request', async () => {
  // The addon of a debug build, which has a function that panics, in the place of the package's.
  const addon = join(TARGET, 'node-debug/tokenward.linux-x64-gnu.node');
  const code = `
    const assert = require('node:assert');
    const http = require('node:http');
    const native = require(${JSON.stringify(addon)});
    const path = ${JSON.stringify(join(PACKAGE, 'lib/native.js'))};
    require.cache[path] = { id: path, filename: path, loaded: true, exports: native };
    assert.throws(() => native.panic(), Error);
    const { Introspector } = require(${JSON.stringify(join(PACKAGE, 'lib/index.js'))});
    const { tokenward } = require(${JSON.stringify(join(PACKAGE, 'lib/express.js'))});
    const fetch = async () => new Response('{"active":true}', { headers: { 'content-type': 'application/json' } });
    const make = () => new Introspector({ introspection_url: 'https://as.example/', authorization_value: 'x' }, { fetch });
    const request = { method: 'GET', url: '/', rawHeaders: ['Authorization', 'Bearer abc'] };
    (async () => {
      const { reply, decider, glancer } = native.NativeIntrospector.prototype;
      native.NativeIntrospector.prototype.reply = () => native.panic();
      const denied = await make().check(request);
      assert.deepEqual([denied.reason, denied.status], ['internal', 500]);
      native.NativeIntrospector.prototype.reply = reply;
      // Of the two functions that decide, this request calls the one and the next the other.
      const whole = { ...request, rawHeaders: [...request.rawHeaders, 'X-Consumer-ID', '1'] };
      native.NativeIntrospector.prototype.glancer = () => () => native.panic();
      native.NativeIntrospector.prototype.decider = () => () => native.panic();
      const broken = make();
      for (const one of [request, whole]) {
        assert.throws(() => broken.lookup(one), Error);
        await assert.rejects(broken.check(one), Error);
      }
      const guard = tokenward(broken);
      const server = http.createServer((req, res) => guard(req, res, () => res.end('passed')));
      server.listen(0, '127.0.0.1', async () => {
        const answer = await globalThis.fetch('http://127.0.0.1:' + server.address().port, { headers: { authorization: 'Bearer abc' } });
        assert.equal(answer.status, 500);
        assert.match(await answer.text(), /server_error/);
        native.NativeIntrospector.prototype.decider = decider;
        native.NativeIntrospector.prototype.glancer = glancer;
        assert.ok((await make().check(request)).allowed);
        console.log('done');
        process.exit(0);
      });
    })();
  `;
  const { stdout } = await run(process.execPath, ['--no-warnings', '--eval', code]);
  assert.equal(stdout, 'done\n');
});

for (const name of ['express', 'fastify']) {
  test(`the example ${name}.js does what it shows`, async (t) => {
    const as = await startAuthorizationServer();
    const upstream = await startUpstream();
    t.after(() => Promise.all([as.stop(), upstream.stop()]));
    const config = { introspection_url: as.endpoint, client_auth: clientAuth('gateway'), consumers: CONSUMERS };
    const file = join(await folder((stop) => t.after(stop)), 'tokenward.json');
    writeFileSync(file, JSON.stringify(config));
    const program = spawn(process.execPath, [join(ROOT, 'examples/node', `${name}.js`), file, '0', upstream.url], {
      env: { ...process.env, NODE_PATH: join(PROJECT, 'node_modules') },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    t.after(() => program.kill());
    let said = '';
    for (const stream of [program.stdout, program.stderr]) stream.on('data', (chunk) => (said += chunk));
    const ready = await eventually(`${name} is ready`, () => /^ready (\S+)$/m.exec(said) || (program.exitCode !== null && [said]));
    assert.ok(ready[1], said);
    const token = await as.userToken('alice');
    const send = (path, headers = [bearer(token)]) => request(ready[1], { path, headers });
    assert.equal((await send('/health', [])).body, 'ok');
    assert.deepEqual((await send('/orders')).json(), { consumer: 'alice', subject: 'alice' });
    assertRefused(await send('/orders', []), 'missing');
    for (const path of ['/reports', ...(name === 'express' ? ['/Reports/', '/reports?a'] : ['/reports?a'])]) assertRefused(await send(path), 'scope');
    if (name === 'fastify') {
      const passed = (await send('/upstream/a')).json();
      assert.equal(passed.url, '/a');
      assert.equal(managed(passed)['x-consumer-id'], ALICE['x-consumer-id']);
    }
    assert.equal(as.calls.length, 1);
    assert.ok(!said.includes(token));
  });
}
