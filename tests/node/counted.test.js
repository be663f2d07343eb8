// Only what counts of a request crosses into the addon: whatever is left out, the decision is the one about the whole request.

import assert from 'node:assert/strict';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

import { Introspector } from 'tokenward';

import { CONSUMERS, config, endpoint, require, requestOf } from './support/servers.js';

const lib = (name) => require(join(dirname(require.resolve('tokenward/package.json')), 'lib', name));
const { credentialAt, mayCount } = lib('counted.js');
const native = lib('native.js');

/** The same choices each time. */
function choices(seed) {
  let state = seed;
  const below = (end) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * end);
  };
  return { below, of: (all) => all[below(all.length)] };
}

const OTHERS = ['Host', 'TE', 'Accept', 'Content-Type', 'X-Correlation-Id', 'x-tenant-id', 'X-User-Id', 'Proxy-Authorization', 'autho', ''];

function nameOf({ below, of }) {
  let name = below(4) === 0 ? of(OTHERS) : of(native.countedHeaders());
  if (below(3) === 0) name += of(['ID', 'x', '-', '_', '.scope', 's']);
  name = Array.from(name, (c) => {
    const turn = below(20);
    if (turn < 6) return c.toUpperCase();
    if (turn < 9 && c === '-') return of(['_', '.']);
    return turn === 9 ? String.fromCharCode(below(256)) : c;
  }).join('');
  return below(20) === 0 ? name.slice(0, below(14)) : name;
}

test('no name that counts for the core is passed over', () => {
  const chosen = choices(1);
  let counted = 0;
  for (let i = 0; i < 200_000; i += 1) {
    const name = nameOf(chosen);
    if (!native.isManaged(name) && !/^authorization$/i.test(name)) continue;
    counted += 1;
    assert.ok(mayCount(name), JSON.stringify(name));
  }
  assert.ok(counted > 10_000, String(counted));
});

test('usual headers are passed over, and the only credential is found wherever it stands', () => {
  const usual = ['Host', 'Accept', 'Accept-Encoding', 'Accept-Language', 'Connection', 'Cookie', 'X-Forwarded-For', 'X-Request-Id', 'x-api-key'];
  for (const name of usual) assert.equal(mayCount(name), false, name);
  const lines = usual.flatMap((name) => [name, '1']);
  for (let at = 0; at <= lines.length; at += 2) {
    assert.equal(credentialAt(lines.toSpliced(at, 0, 'aUTHORIZATION', 'Bearer abc')), at);
    assert.equal(credentialAt(lines.toSpliced(at, 0, 'authorization', 'a', 'Authorization', 'b')), -1);
    assert.equal(credentialAt(['Authorization', 'Bearer abc', ...lines].toSpliced(at, 0, 'X_Consumer.ID', 'root')), -1);
  }
  assert.equal(credentialAt(lines), -1);
});

test('whatever is left out of a request, the decision is the one about all of it', async (t) => {
  const as = await endpoint(t, (form) => ({ active: form.get('token') !== 'bad', username: 'alice', scope: 'read' }));
  const chosen = choices(2);
  const credentials = ['Bearer good', 'bearer  good', 'Bearer bad', 'Bearer new', 'Bearer ?', 'Basic good', 'token good', '', 'Bearer g\0od', 'Bearer é'];
  const targets = ['/', '/orders', '/?access_token=good', '/a?b&access%5Ftoken=x', 'http://host/a', '*', '/access_token=good'];
  const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND'];
  for (const fields of [{}, { token_from: ['header', 'query'], run_on_preflight: false }, { profile: 'kong', anonymous: '2' }]) {
    const using = new Introspector(config(as.url, fields), { consumers: CONSUMERS });
    for (const token of ['good', 'bad']) await using.check(requestOf(token));
    const policies = [undefined, using.policy({ token_from: ['body', 'header'], require: { scopes: ['admin'] } })];
    let allowed = 0;
    for (let i = 0; i < 8000; i += 1) {
      const rawHeaders = [];
      for (let lines = chosen.below(4); lines > 0; lines -= 1) {
        if (chosen.below(2) === 0) rawHeaders.push(chosen.of(['Authorization', 'authorization']), chosen.of(credentials));
        else rawHeaders.push(nameOf(chosen), chosen.of(['application/json', 'application/x-www-form-urlencoded', '1']));
      }
      const request = { method: chosen.of(methods), url: chosen.of(targets), rawHeaders };
      const policy = chosen.of(policies);
      const found = using.lookup(request, { policy });
      // Trailers, be there none of them, are told of with the whole request alone.
      const whole = using.lookup({ ...request, trailerNames: [] }, { policy });
      const shown = (decision) =>
        decision?.kind === 'allow'
          ? { ...decision.toJSON(), edits: decision.edits, target: decision.target, body: decision.body, headers: decision.responseHeaders }
          : decision;
      assert.deepEqual(shown(found), shown(whole), JSON.stringify([request, policy !== undefined]));
      if (found?.kind === 'allow') allowed += 1;
    }
    assert.ok(allowed > 200, String(allowed));
  }
});

test('a replaced configuration may want more of a request, and less again', async (t) => {
  const as = await endpoint(t);
  const using = new Introspector(config(as.url), { consumers: CONSUMERS });
  const policy = using.policy({});
  const paths = async () => {
    const from = as.headers.length;
    for (const url of ['/a', '/b']) for (const options of [{}, { policy }]) await using.check(requestOf('abc', { url }), options);
    return as.headers.slice(from).map((raw) => raw[raw.findIndex((name) => name.toLowerCase() === 'x-request-path') + 1]);
  };
  assert.equal((await paths()).length, 1);
  using.replaceConfig(config(as.url, { introspect_request: true }));
  assert.deepEqual(await paths(), ['/a', '/b']);
  using.replaceConfig(config(as.url));
  assert.equal((await paths()).length, 1);
});

test("what requests share cannot be written to, and what is a request's own is not shared", async (t) => {
  const as = await endpoint(t, (form) => ({ active: true, username: form.get('token') === 'abc' ? 'alice' : 'guest' }));
  const using = new Introspector(config(as.url), { consumers: CONSUMERS });
  for (const token of ['abc', 'def']) await using.check(requestOf(token));
  const found = using.lookup(requestOf('abc'));
  assert.throws(() => {
    'use strict';
    found.note = "another request's";
  }, TypeError);
  assert.ok(Object.isFrozen(found));
  assert.equal(using.lookup(requestOf('abc')).consumer.username, 'alice');
  assert.equal(using.lookup(requestOf('def')).consumer.username, 'guest');
  const spoofing = using.lookup(requestOf('abc', { rawHeaders: ['Authorization', 'Bearer abc', 'x_consumer_id', '7'] }));
  assert.deepEqual(spoofing.edits.remove, ['Authorization', 'x_consumer_id']);
  assert.ok(Object.isFrozen(spoofing));
  const query = using.lookup(requestOf('abc', { url: '/?access_token=abc' }));
  assert.equal(query.target, '/');
  assert.deepEqual([using.lookup(requestOf('abc')).edits.remove, using.lookup(requestOf('abc')).target], [['Authorization'], null]);
});

test('a request that holds what is no byte is refused where that counts', async (t) => {
  const as = await endpoint(t);
  const using = new Introspector(config(as.url), { consumers: CONSUMERS });
  for (const line of [['Authorization', 'Bearer \u0142'], ['x-consumer-\u0142', '1']]) {
    const rawHeaders = line[0] === 'Authorization' ? line : ['Authorization', 'Bearer abc', ...line];
    assert.throws(() => using.lookup(requestOf('abc', { rawHeaders })), TypeError);
  }
  assert.throws(() => using.lookup(requestOf('abc', { url: '/?\u0142' })), TypeError);
});

test("a caller's list of headers is not touched, frozen or not", async (t) => {
  const as = await endpoint(t);
  const using = new Introspector(config(as.url), { consumers: CONSUMERS });
  for (const more of [[], ['X-Consumer-ID', '1']]) {
    const rawHeaders = Object.freeze(['Authorization', 'Bearer abc', ...more]);
    const request = requestOf('abc', { rawHeaders });
    assert.ok((await using.check(request)).allowed && using.lookup(request).allowed);
    assert.equal(rawHeaders.length, 2 + more.length);
  }
});
