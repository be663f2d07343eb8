// The introspector through its JavaScript API: loading, deciding, steps, replacing, and what none of it ever says.

import assert from 'node:assert/strict';
import dc from 'node:diagnostics_channel';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { Worker } from 'node:worker_threads';

import { Allow, ConfigError, Deny, Exchange, Introspector, Policy, StepError, Wait, isManaged } from 'tokenward';

import { eventually, folder } from '../gateway/support/parts.js';
import { CONSUMERS, config, endpoint, requestOf, require } from './support/servers.js';

const NOWHERE = 'http://127.0.0.1:9/introspect';
const options = { consumers: CONSUMERS };
const ACTIVE = { status: 200, headers: { 'content-type': 'application/json' }, body: '{"active":true,"username":"alice"}' };

test('every error of a configuration is listed, and none holds a secret', () => {
  const bad = config('http://as.example/', { cache: { negative_tll: 5 }, ttl: 0, authorization_value: 17 });
  assert.throws(
    () => new Introspector(bad, { consumers: [{ id: '1', username: 'a' }, { id: '1', username: 'b' }] }),
    (error) => {
      assert.ok(error instanceof ConfigError && error instanceof Error);
      assert.equal(error.code, 'ERR_TOKENWARD_CONFIG');
      const paths = error.problems.map(({ path }) => path);
      for (const path of ['introspection_url', 'cache.negative_tll', 'ttl', 'authorization_value', 'consumers[1].id']) {
        assert.ok(paths.includes(path), `${path} is not among ${paths}`);
      }
      assert.match(error.message, /`negative_ttl`/);
      return true;
    },
  );
  assert.throws(() => new Introspector('{'), ConfigError);
  assert.throws(() => new Introspector(null), TypeError);
  assert.throws(() => new Introspector(config(NOWHERE), { log: 'console' }), TypeError);
  assert.throws(() => new Introspector(config(NOWHERE), { fetch: 1 }), TypeError);
  assert.throws(() => new Introspector(config(NOWHERE), { dispatcher: {} }), TypeError);
  assert.throws(() => new Introspector(config(NOWHERE), { logLevel: 'loud' }), TypeError);
});

test('a configuration comes from files, and secrets from files and the environment', async (t) => {
  const path = await folder((stop) => t.after(stop));
  await writeFile(join(path, 'secret'), 'Basic ZnJvbTphLWZpbGU=\n');
  const document = { ...config(NOWHERE), authorization_value: { file: 'secret' }, consumers: CONSUMERS };
  await writeFile(join(path, 'config.json'), JSON.stringify(document));
  const introspector = Introspector.fromFile(join(path, 'config.json'));
  assert.deepEqual(introspector.consumers.map(({ id }) => id), ['1', '2']);
  const exchange = introspector.begin(requestOf('abc'));
  assert.deepEqual(exchange.headers[0], ['Authorization', 'Basic ZnJvbTphLWZpbGU=']);
  exchange.abandon();

  const inEnv = new Introspector(config(NOWHERE, { authorization_value: { env: 'SECRET' } }), { env: { SECRET: 'Basic eA==' } });
  assert.equal(inEnv.begin(requestOf('abc')).headers[0][1], 'Basic eA==');

  const kong = `
_format_version: "3.0"
consumers: [{ username: alice, custom_id: c, id: "7" }]
plugins:
- name: oauth2-introspection
  config: { introspection_url: "http://as.example/", authorization_value: "Basic eA==" }
`;
  await writeFile(join(path, 'kong.yaml'), kong);
  const one = Introspector.fromKong(join(path, 'kong.yaml'));
  assert.deepEqual(one.consumers, [{ id: '7', username: 'alice', customId: 'c', tags: [], groups: [] }]);
  assert.ok(one.warnings.some(({ path }) => path === 'introspection_url'));
  assert.throws(() => Introspector.fromFile(join(path, 'none.json')), ConfigError);
});

test('a lookup never asks: first null, then the decision of the cache', async (t) => {
  const as = await endpoint(t);
  const introspector = new Introspector(config(as.url), options);
  assert.equal(introspector.lookup(requestOf('abc')), null);
  assert.deepEqual([introspector.snapshot().misses, introspector.snapshot().introspections], [0, 0]);
  const decision = await introspector.check(requestOf('abc'));
  assert.ok(decision instanceof Allow && decision.allowed);
  assert.equal(decision.source, 'endpoint');
  const hit = introspector.lookup(requestOf('abc'));
  assert.equal(hit.source, 'cache');
  assert.deepEqual(hit.edits, {
    remove: ['Authorization'],
    set: [
      ['X-Consumer-ID', '1'],
      ['X-Consumer-Custom-ID', 'customer-1'],
      ['X-Consumer-Username', 'alice'],
      ['X-Credential-Identifier', 'alice'],
    ],
  });
  assert.deepEqual(hit.consumer, { id: '1', username: 'alice', customId: 'customer-1', tags: ['gold'], groups: [] });
  assert.equal(introspector.lookup(requestOf()).reason, 'token_missing');
  assert.equal(as.calls.length, 1);
});

test('headers come as they are on hand: raw, pairs, Headers, an object', async (t) => {
  const as = await endpoint(t);
  const introspector = new Introspector(config(as.url), options);
  const value = 'Bearer abc';
  for (const headers of [[['authorization', value]], new Headers({ authorization: value }), { authorization: value }, { Authorization: [value] }]) {
    assert.ok((await introspector.check({ method: 'GET', url: '/', headers })).allowed);
  }
  const twice = introspector.lookup({ method: 'GET', url: '/', headers: { authorization: [value, value] } });
  assert.equal(twice.reason, 'request_malformed');
});

test('what is no request is an error of the caller, and never an allow', async () => {
  const introspector = new Introspector(config(NOWHERE), options);
  for (const request of [
    {},
    { method: 'GET' },
    { method: 1, url: '/' },
    { method: 'GET', url: '/', rawHeaders: ['a'] },
    { method: 'GET', url: '/', rawHeaders: ['x-\u0101', 'b'] },
    { method: 'GET', url: '/\u0100' },
    { method: 'GET', url: '/', headers: { a: 1 } },
  ]) {
    assert.throws(() => introspector.lookup(request), TypeError, inspect(request));
    await assert.rejects(introspector.check(request), TypeError);
  }
  assert.throws(() => introspector.lookup(requestOf('abc'), { policy: {} }), TypeError);
  const other = new Introspector(config(NOWHERE));
  assert.throws(() => introspector.lookup(requestOf('abc'), { policy: other.policy({}) }), TypeError);
});

test('a further policy has requirements of its own over the same answer', async (t) => {
  const as = await endpoint(t, { active: true, scope: 'read', username: 'alice' });
  const introspector = new Introspector(config(as.url), options);
  const policy = introspector.policy({ require: { scopes: ['admin'] }, realm: 'reports' });
  assert.ok(policy instanceof Policy);
  assert.ok((await introspector.check(requestOf('abc'))).allowed);
  const denied = await introspector.check(requestOf('abc'), { policy });
  assert.ok(denied instanceof Deny);
  assert.deepEqual([denied.reason, denied.number, denied.status, denied.source], ['insufficient_scope', 1300, 403, 'cache']);
  assert.match(denied.headers[2][1], /realm="reports".*scope="admin"/);
  assert.equal(as.calls.length, 1);
  assert.throws(() => introspector.policy({ ttl: 1 }), ConfigError);
});

test('people with their own I/O go from step to step', () => {
  const introspector = new Introspector(config(NOWHERE), options);
  const asking = introspector.begin(requestOf('abc'));
  assert.ok(asking instanceof Exchange);
  assert.deepEqual([asking.kind, asking.method, asking.url, asking.body], ['introspect', 'POST', NOWHERE, 'token=abc']);
  assert.ok(asking.timeLeft > 9_000 && asking.timeLeft <= 10_000);
  const waiting = introspector.begin(requestOf('abc'));
  assert.ok(waiting instanceof Wait);
  const woken = [];
  waiting.onReady((ready) => woken.push(ready));
  const again = waiting.resume();
  assert.equal(again.kind, 'wait');
  assert.deepEqual(woken, [false]);
  const retried = asking.fail('connect');
  assert.equal(retried.kind, 'introspect');
  again.onReady((ready) => woken.push(ready));
  assert.ok(retried.reply(ACTIVE).allowed);
  assert.deepEqual(woken, [false, true]);
  const shared = again.resume();
  assert.deepEqual([shared.kind, shared.source], ['allow', 'waiting']);

  for (const used of [() => asking.reply(ACTIVE), () => asking.fail('closed'), () => waiting.resume(), () => asking.body, () => waiting.onReady(() => {})]) {
    assert.throws(used, (error) => error instanceof StepError && error.code === 'ERR_TOKENWARD_STEP');
  }
  assert.ok(asking.isUsed);
  const other = introspector.begin(requestOf('def'));
  for (const wrong of [{ status: '200' }, { status: 0 }, { status: 200, body: 1 }, { status: 200, headers: [[1, 2]] }]) {
    assert.throws(() => other.reply(wrong), TypeError);
  }
  assert.throws(() => other.fail('tired'), TypeError);
  assert.equal(other.isUsed, false);
  other.abandon();
  other.abandon();
});

test('a wait that was woken before anybody listened says so at once', async () => {
  const introspector = new Introspector(config(NOWHERE), options);
  const asking = introspector.begin(requestOf('abc'));
  const waiting = introspector.begin(requestOf('abc'));
  asking.reply(ACTIVE);
  await waiting.ready();
  assert.ok(waiting.resume().allowed);
});

test('a step that is abandoned or disposed of hands its question on', async () => {
  const introspector = new Introspector(config(NOWHERE), options);
  for (const leave of [(step) => step.abandon(), (step) => step[Symbol.dispose]()]) {
    const asking = introspector.begin(requestOf('abc'));
    const waiting = introspector.begin(requestOf('abc'));
    leave(asking);
    await waiting.ready();
    const next = waiting.resume();
    assert.equal(next.kind, 'introspect');
    leave(next);
    assert.equal(introspector.snapshot().inFlight, 0);
  }
});

test('replacing and forgetting take effect with the next decision', async (t) => {
  const as = await endpoint(t);
  const introspector = new Introspector(config(as.url, { ttl: 600 }), options);
  const id = async () => (await introspector.check(requestOf('abc'))).consumer?.id;
  assert.equal(await id(), '1');
  introspector.replaceConsumers([{ id: '9', username: 'alice' }]);
  assert.equal(await id(), '9');
  introspector.replaceConfig(config(as.url, { ttl: 600, require: { scopes: ['admin'] } }));
  assert.equal((await introspector.check(requestOf('abc'))).reason, 'insufficient_scope');
  assert.equal(as.calls.length, 1);
  assert.throws(() => introspector.replaceConfig({}), ConfigError);
  assert.throws(() => introspector.replaceConsumers([{}]), ConfigError);
  introspector.replaceConfig(config(as.url, { ttl: 600 }));
  assert.equal(introspector.forget('abc'), true);
  assert.equal(introspector.forget('abc'), false);
  assert.equal(introspector.lookup(requestOf('abc')), null);
  assert.equal(await id(), '9');
  introspector.forgetAll();
  assert.equal(introspector.lookup(requestOf('abc')), null);
  assert.equal(as.calls.length, 2);
});

test('what requests share cannot be changed by any of them', async (t) => {
  const as = await endpoint(t, '{"active":true,"username":"alice","groups":["a"],"big":12345678901234567890,"i":"i7","__proto__":{"x":1}}');
  const introspector = new Introspector(config(as.url), options);
  await introspector.check(requestOf('abc'));
  const { claims, consumer, edits, identity, claimsText } = introspector.lookup(requestOf('abc'));
  for (const change of [
    () => (claims.username = 'root'),
    () => claims.groups.push('admin'),
    () => (consumer.id = '0'),
    () => consumer.tags.push('root'),
    () => edits.set.push(['X-Consumer-ID', '0']),
    () => (edits.set[0][1] = '0'),
    () => (identity.type = 'none'),
  ]) {
    assert.throws(change, TypeError);
  }
  assert.equal(claims.big, 12345678901234567890n);
  assert.equal(claims.i, 'i7');
  assert.ok(Object.hasOwn(claims, '__proto__') && claims.x === undefined);
  assert.match(claimsText, /12345678901234567890/);
});

test('headers never hold a line end, whatever a claim holds', async (t) => {
  const as = await endpoint(t, { active: true, username: 'a\r\nX-Admin: 1', scope: 'r\n\u0000', custom: { a: '\r\n' } });
  for (const header_encoding of ['utf8', 'rfc8187']) {
    const introspector = new Introspector(config(as.url, { custom_claims_forward: ['custom'], header_encoding }), options);
    const { set } = (await introspector.check(requestOf('abc'))).edits;
    assert.equal(set.length, 3);
    for (const [name, value] of set) assert.doesNotMatch(name + value, /[\r\n\0]/);
  }
});

test('nothing of ours shows a token, a secret or a claim', async (t) => {
  const claim = 'claim-of-somebody-else';
  const as = await endpoint(t, { active: true, username: 'alice', custom: claim });
  const said = [];
  const token = 'tok3n-that-nobody-may-see';
  const introspector = new Introspector(config(as.url, { custom_claims_forward: ['custom'] }), {
    ...options,
    log: (line) => said.push(line.text, JSON.stringify(line)),
    logLevel: 'debug',
  });
  const show = (value) => {
    for (const how of [{}, { showHidden: true, depth: Infinity, getters: true }, { depth: Infinity, customInspect: false, showHidden: true }]) {
      said.push(inspect(value, how));
    }
    said.push(String(value), JSON.stringify(value) ?? '');
  };
  const exchange = introspector.begin(requestOf(token));
  const wait = introspector.begin(requestOf(token));
  void exchange.body;
  [exchange, wait, introspector, introspector.policy({})].forEach(show);
  exchange.abandon();
  wait.abandon();
  show(await introspector.check(requestOf(token, { url: `/?access_token=${token}` })));
  show(introspector.lookup(requestOf(token)));
  await as.stop?.();
  as.status = 500;
  show(await introspector.check(requestOf(`${token}-2`)));
  try {
    exchange.reply(ACTIVE);
  } catch (error) {
    show(error);
  }
  for (const secret of [token, 'cGFja2FnZTpzM2NyZXQtb2YtdGhlLXRlc3Rz', claim]) {
    assert.ok(!said.some((text) => text.includes(secret)), said.find((text) => text.includes(secret)));
  }
});

test('log lines and messages of the channels tell what happened, and a listener that throws harms nobody', async (t) => {
  const as = await endpoint(t, 'no JSON');
  const [lines, told] = [[], []];
  const warned = [];
  const onWarning = (warning) => warned.push(warning.name);
  process.on('warning', onWarning);
  t.after(() => process.off('warning', onWarning));
  const introspector = new Introspector(config(as.url), {
    log(line) {
      lines.push(line);
      throw new Error('the log is full');
    },
  });
  const listen = (name) => {
    const listener = (message) => told.push([name, message]);
    dc.subscribe(`tokenward:${name}`, listener);
    t.after(() => dc.unsubscribe(`tokenward:${name}`, listener));
  };
  ['decision', 'introspection', 'log'].forEach(listen);
  const denied = await introspector.check(requestOf('abc'));
  assert.equal(denied.reason, 'reply_malformed');
  const { level, reason, fields, text } = lines.find((line) => line.reason);
  assert.deepEqual([level, reason, fields.status], ['error', 'reply_malformed', '200']);
  assert.match(text, /reply_malformed/);
  assert.deepEqual(told.map(([name]) => name).sort(), ['decision', 'introspection', 'log']);
  assert.equal(told.find(([name]) => name === 'decision')[1].decision, denied);
  const { status, duration } = told.find(([name]) => name === 'introspection')[1];
  assert.ok(status === 200 && duration > 0);
  await eventually('the warning is told', () => warned.includes('TokenwardWarning'));
});

test('counters and metrics are those of the core, and the words of TypeScript are its reasons', async (t) => {
  const as = await endpoint(t);
  const introspector = new Introspector(config(as.url), options);
  await introspector.check(requestOf('abc'));
  introspector.lookup(requestOf('abc'));
  introspector.lookup(requestOf());
  const snapshot = introspector.snapshot();
  assert.deepEqual([snapshot.hits, snapshot.misses, snapshot.decisions.allow, snapshot.decisions.token_missing], [1, 1, 2, 1]);
  assert.equal(snapshot.latency.length, snapshot.latencyBounds.length + 1);
  assert.match(introspector.metrics(), /^tokenward_hits_total 1$/m);
  const { readFileSync } = await import('node:fs');
  const declared = readFileSync(require.resolve('tokenward').replace(/index\.js$/, 'native.d.ts'), 'utf8');
  const [, union] = /export type Reason =\n([^;]*);/.exec(declared);
  const words = [...union.matchAll(/'([a-z_]+)'/g)].map(([, word]) => word);
  assert.deepEqual(words.sort(), Object.keys(snapshot.decisions).filter((word) => word !== 'allow').sort());
});

test('names that only Tokenward may set are known in every spelling', () => {
  for (const name of ['X-Consumer-ID', 'x_consumer.id', 'X-Credential-', 'x-anonymous-consumer']) assert.ok(isManaged(name), name);
  for (const name of ['X-Consumers', 'Authorization', '']) assert.ok(!isManaged(name), name);
});

test('both kinds of modules are one package', async () => {
  const commonJs = require('tokenward');
  assert.equal(commonJs.Introspector, Introspector);
  for (const path of ['tokenward', 'tokenward/express', 'tokenward/fastify', 'tokenward/proxy']) {
    const names = Object.keys(await import(path)).filter((name) => name !== 'default');
    assert.deepEqual(names.sort(), Object.keys(require(path)).sort(), path);
  }
});

test('workers have introspectors of their own, and may end with steps under way', async (t) => {
  const as = await endpoint(t);
  const code = `
    const { parentPort, workerData } = require('node:worker_threads');
    const { Introspector } = require(workerData.path);
    const introspector = new Introspector(workerData.config, { consumers: workerData.consumers });
    const request = (token) => ({ method: 'GET', url: '/', rawHeaders: ['Authorization', 'Bearer ' + token] });
    global.kept = [introspector.begin(request('kept')), introspector.begin(request('kept'))];
    introspector.check(request(workerData.token)).then(({ consumer }) => parentPort.postMessage(consumer.id));
    setInterval(() => introspector.lookup(request(workerData.token)), 1);
  `;
  const workers = Array.from({ length: 4 }, (_, i) => {
    const workerData = { path: require.resolve('tokenward'), config: config(as.url), consumers: CONSUMERS, token: `t${i}` };
    return new Worker(code, { eval: true, workerData });
  });
  const ids = await Promise.all(workers.map((worker) => new Promise((resolve, fail) => worker.once('message', resolve).once('error', fail))));
  assert.deepEqual(ids, ['1', '1', '1', '1']);
  await Promise.all(workers.map((worker) => worker.terminate()));
});
