// What a client, an authorization server or an application's slip might turn into a way in, or an outage.

import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import Fastify from 'fastify';
import { Introspector } from 'tokenward';
import { tokenward } from 'tokenward/express';
import { tokenward as plugin } from 'tokenward/fastify';
import { forwardHeaders, guardUpgrade } from 'tokenward/proxy';
import { Agent } from 'undici';

import { bearer, exchange, request } from '../gateway/support/client.js';
import { CONSUMERS, config, endpoint, requestOf, serve } from './support/servers.js';

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc');

const make = (as, fields, options) => new Introspector(config(as.url, fields), { consumers: CONSUMERS, ...options });

test('a policy that only an adapter holds stays the one that decides', async (t) => {
  const as = await endpoint(t, { active: true, username: 'alice', scope: 'read' });
  const using = make(as);
  const guard = tokenward(using, { policy: using.policy({ require: { scopes: ['admin'] } }) });
  const url = await serve(t, (req, res) => guard(req, res, () => res.end('passed')));
  assert.equal((await request(url, { headers: [bearer('abc')] })).status, 403);
  for (let i = 0; i < 5; i += 1) {
    gc();
    await pause(10);
  }
  // Whoever comes next must not get its number.
  using.policy({ realm: 'anybody' });
  assert.equal((await request(url, { headers: [bearer('abc')] })).status, 403);
});

test("a route's own policy counts, whether or not the plugin was loaded before the route was made", async (t) => {
  const as = await endpoint(t, { active: true, username: 'alice', scope: 'read' });
  const using = make(as);
  const app = Fastify();
  app.register(plugin, { introspector: using });
  app.get('/', async () => 'passed');
  app.get('/admin', { config: { tokenward: { policy: using.policy({ require: { scopes: ['admin'] } }) } } }, async () => 'passed');
  app.get('/open', { config: { tokenward: false } }, async () => 'passed');
  t.after(() => app.close());
  const url = await app.listen({ port: 0, host: '127.0.0.1' });
  const send = async (path) => (await request(url, { path, headers: [bearer('abc')] })).status;
  assert.equal(await send('/'), 200);
  assert.equal(await send('/admin'), 403);
  assert.equal((await request(url, { path: '/open' })).status, 200);
});

test('trailers behind a body that a token was cut out of cannot become headers of ours', async (t) => {
  const as = await endpoint(t);
  const guard = tokenward(make(as, { token_from: ['body'] }));
  const url = await serve(t, (req, res) =>
    guard(req, res, async () => {
      const early = [...req.rawTrailers];
      req.resume();
      await new Promise((resolve) => req.on('end', resolve));
      res.end(JSON.stringify([early, req.rawTrailers, req.trailers, req.trailersDistinct]));
    }),
  );
  const answer = await exchange(
    url,
    'POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n' +
      'Transfer-Encoding: chunked\r\n\r\n14\r\naccess_token=abc&b=2\r\n0\r\nX-Consumer-ID: root\r\nX-Other: 1\r\n\r\n',
  );
  assert.match(answer, /^HTTP\/1\.1 200 /);
  assert.match(answer, /X-Other/);
  assert.doesNotMatch(answer, /root/);
});

test('a body that was read before, and of which nothing is left, is no obstacle to a token in the header', async (t) => {
  const as = await endpoint(t, (form) => ({ active: form.get('token') !== 'bad', username: 'alice' }));
  for (const profile of ['standard', 'kong']) {
    const guard = tokenward(make(as, { profile, allow_insecure_http: true, token_from: ['header', 'body'] }));
    const url = await serve(t, (req, res) => {
      req.on('end', () => guard(req, res, () => res.end('passed')));
      req.resume();
    });
    const post = async (value) => {
      const headers = [['Content-Type', 'application/x-www-form-urlencoded'], ['Authorization', value]];
      return (await request(url, { method: 'POST', headers, body: 'a=b' })).status;
    };
    for (const token of ['abc', 'bad']) {
      const status = token === 'abc' ? 200 : 401;
      assert.deepEqual([await post(`Bearer ${token}`), await post(`Bearer ${token}`)], [status, status], `${profile} ${token}`);
    }
    assert.deepEqual([await post('Bearer ?'), await post('Basic abc')], [400, 401], profile);
  }
});

test('a reply that the addon is not handed leaves nothing under way', async (t) => {
  const as = await endpoint(t, (form, req, res) => {
    res.setHeader('X-Odd', Buffer.from('\u20ac').toString('latin1'));
    return { active: true, username: 'alice' };
  });
  const dispatcher = new Agent();
  t.after(() => dispatcher.close());
  const using = make(as, {}, { dispatcher });
  assert.equal((await using.check(requestOf('abc'))).kind, 'allow');
  const step = make(as).begin(requestOf('abc'));
  assert.equal(step.reply({ status: 200, headers: [['Content-Type', 'application/json'], ['X-Odd', '\u20ac']], body: '{"active":true}' }).kind, 'allow');

  // A clock that fails once stands for whatever else throws between two steps.
  let isBroken = false;
  const clock = () => {
    if (isBroken) throw new Error('of the user');
    return { wall: Date.now() / 1000, monotonic: performance.now() / 1000 };
  };
  const odd = make(as, {}, { clock });
  for (const use of [(one) => one.reply({ status: 200, body: '{"active":true}' }), (one) => one.fail('closed')]) {
    const one = odd.begin(requestOf('abc'));
    const wait = odd.begin(requestOf('abc'));
    isBroken = true;
    assert.throws(() => use(one), /of the user/);
    assert.throws(() => wait.resume(), /of the user/);
    isBroken = false;
    assert.equal(odd.snapshot().inFlight, 0);
  }
});

test('a function in place of fetch that gives text in place of bytes is no way past the bound', async (t) => {
  const as = await endpoint(t);
  let given = 0;
  const endless = async () => ({
    status: 200,
    headers: new Headers(),
    body: (async function* () {
      for (; given < 10_000; given += 1) yield ' '.repeat(1000);
    })(),
  });
  const decision = await make(as, {}, { fetch: endless }).check(requestOf('abc'));
  assert.equal(decision.kind, 'deny');
  assert.equal(decision.reason, 'reply_malformed');
  assert.ok(given < 10, `${given} parts were read`);
});

test('onDeny that fails later ends no process, and leaves no request without an end', async (t) => {
  const as = await endpoint(t);
  const using = make(as);
  const failed = [];
  const listener = (error) => failed.push(error);
  process.on('unhandledRejection', listener);
  t.after(() => process.off('unhandledRejection', listener));
  const later = async () => {
    await pause(5);
    throw new Error('of the user');
  };
  const server = http.createServer();
  server.on('upgrade', guardUpgrade(using, (req, socket) => socket.end('passed'), { onDeny: later }));
  const upgrade = 'GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';
  assert.match(await exchange(await serve(t, server), upgrade), /^HTTP\/1\.1 401 /);

  for (const begun of [
    (deny, req, res) => {
      res.writeHead(401, { 'Content-Length': 5 });
      res.write('ab');
      throw new Error('of the user');
    },
    async (deny, req, res) => {
      res.writeHead(401, { 'Content-Length': 5 });
      res.write('ab');
      throw new Error('of the user');
    },
  ]) {
    const guard = tokenward(using, { onDeny: begun });
    const url = await serve(t, (req, res) => guard(req, res, () => res.end('passed')));
    const text = await Promise.race([exchange(url, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n').catch(String), pause(2_000, 'hangs')]);
    assert.notEqual(text, 'hangs');
    assert.doesNotMatch(text, /passed/);

    const app = Fastify();
    app.register(plugin, { introspector: using, onDeny: (deny, req, reply) => begun(deny, req, reply.raw) });
    app.get('/', async () => 'passed');
    t.after(() => app.close());
    const address = await app.listen({ port: 0, host: '127.0.0.1' });
    const other = await Promise.race([exchange(address, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n').catch(String), pause(2_000, 'hangs')]);
    assert.notEqual(other, 'hangs');
    assert.doesNotMatch(other, /passed/);
  }
  await pause(20);
  assert.deepEqual(failed, []);
});

test('no character divides a request where its sender wants it to', async (t) => {
  const as = await endpoint(t);
  const using = make(as);
  assert.equal((await using.check(requestOf('abc'))).kind, 'allow');
  const hidden = ['\0', '\u0100', '\u0141'].flatMap((mark) => [
    ['X', `a${mark}Authorization${mark}Bearer abc`],
    [`X${mark}a${mark}Authorization`, 'Bearer abc'],
    ['X', `a${mark}Authorization${mark}Bearer abc${mark}GET${mark}/`, 'Y', 'b'],
  ]);
  for (const rawHeaders of hidden) {
    for (const url of ['/', '/\0', '/\u0100']) {
      let found;
      try {
        found = using.lookup({ method: 'GET', url, rawHeaders });
      } catch (error) {
        assert.ok(error instanceof TypeError, String(error));
        continue;
      }
      assert.equal(found.kind, 'deny', JSON.stringify([url, rawHeaders]));
    }
  }
});

test('members called __proto__ stay members of the claims', async (t) => {
  for (const more of ['', ',"n":12345678901234567890']) {
    const as = await endpoint(t, `{"active":true,"__proto__":{"admin":true},"a":{"__proto__":1,"constructor":2}${more}}`);
    const { claims } = await make(as).check(requestOf('abc'));
    assert.equal(claims.admin, undefined);
    assert.equal({}.admin, undefined);
    assert.deepEqual(Object.getOwnPropertyDescriptor(claims, '__proto__').value, { admin: true });
    assert.equal(Object.getPrototypeOf(claims), Object.prototype);
  }
});

test('lines that are kept for an upstream name none of ours as of the connection alone', async (t) => {
  const as = await endpoint(t);
  const rawHeaders = ['Connection', 'Upgrade, x_consumer.id, X-Consumer-ID', ...bearer('abc')];
  const allow = await make(as).check({ method: 'GET', url: '/', rawHeaders });
  const lines = forwardHeaders(rawHeaders, allow, { keep: ['connection', 'upgrade'] });
  assert.deepEqual(lines.filter(([name]) => name === 'Connection'), [['Connection', 'Upgrade']]);
});
