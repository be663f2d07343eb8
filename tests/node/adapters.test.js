// The adapters on real servers, against an authorization server that is not ours.

import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, test } from 'node:test';

import express from 'express';
import Fastify from 'fastify';
import httpProxy from '@fastify/http-proxy';
import { createProxyMiddleware } from 'http-proxy-middleware';
import { Introspector } from 'tokenward';
import { tokenward } from 'tokenward/express';
import { proxyOptions, tokenward as plugin } from 'tokenward/fastify';
import { forwardHeaders, guardUpgrade, makePrivate, proxyEvents } from 'tokenward/proxy';
import { Agent, request as undiciRequest } from 'undici';

import { clientAuth, startAuthorizationServer } from '../gateway/support/authorization_server.js';
import { bearer, exchange, request } from '../gateway/support/client.js';
import { eventually } from '../gateway/support/parts.js';
import { ALICE, CONSUMERS, assertRefused, credential } from '../gateway/support/scene.js';
import { managed, startUpstream, values } from '../gateway/support/upstream.js';
import { endpoint, serve } from './support/servers.js';

const here = {};
before(async () => {
  here.as = await startAuthorizationServer();
  here.upstream = await startUpstream();
});
after(() => Promise.all([here.as?.stop(), here.upstream?.stop()]));

const introspector = (fields = {}) =>
  new Introspector({ introspection_url: here.as.endpoint, client_auth: clientAuth('gateway'), ...fields }, { consumers: CONSUMERS });

/** What an application sees of a request, in the form of the upstream's answers. */
const seen = (req, body) => {
  const { rawHeaders } = req;
  const headers = rawHeaders.flatMap((name, i) => (i % 2 === 0 ? [[name, rawHeaders[i + 1]]] : []));
  return { method: req.method, url: req.url, originalUrl: req.originalUrl, headers, parsed: req.headers, distinct: req.headersDistinct, body };
};

const tell = async (req, res) => {
  let body = '';
  for await (const chunk of req) body += chunk;
  res.setHeader('Content-Type', 'application/json');
  if (req.url.startsWith('/cacheable')) res.setHeader('Cache-Control', 'public, max-age=60');
  res.end(JSON.stringify({ ...seen(req, body), consumer: req.tokenward?.consumer?.id ?? null, trailers: req.rawTrailers }));
};

/** Hosts that authenticate: each gives a URL at which requests are answered with what reached the application or upstream. */
const HOSTS = {
  async http(t, using, options) {
    const guard = tokenward(using, options);
    return serve(t, (req, res) => guard(req, res, () => tell(req, res)));
  },
  async express(t, using, options) {
    const app = express();
    app.use(tokenward(using, options));
    app.use(tell);
    return serve(t, http.createServer(app));
  },
  async 'express, mounted'(t, using, options) {
    const app = express();
    app.use('/', tokenward(using, options), tell);
    return serve(t, http.createServer(app));
  },
  async fastify(t, using, options) {
    const app = Fastify();
    await app.register(plugin, { introspector: using, ...options });
    app.addContentTypeParser('*', { parseAs: 'string' }, (request, body, done) => done(null, body));
    app.all('/*', (request, reply) => {
      if (request.raw.url.startsWith('/cacheable')) reply.header('Cache-Control', 'public, max-age=60');
      reply.send({ ...seen(request.raw, request.body ?? ''), consumer: request.tokenward?.consumer?.id ?? null, query: request.query });
    });
    t.after(() => app.close());
    return app.listen({ port: 0, host: '127.0.0.1' });
  },
  async 'http-proxy-middleware'(t, using, options) {
    const app = express();
    const proxy = createProxyMiddleware({ target: here.upstream.url, ws: false, on: proxyEvents() });
    app.use(tokenward(using, options), proxy);
    const server = http.createServer(app);
    server.on('upgrade', guardUpgrade(using, proxy.upgrade, options));
    return serve(t, server);
  },
  async '@fastify/http-proxy'(t, using, options) {
    const app = Fastify();
    await app.register(plugin, { introspector: using, ...options });
    await app.register(httpProxy, { upstream: here.upstream.url, websocket: true, ...proxyOptions });
    t.after(() => app.close());
    return app.listen({ port: 0, host: '127.0.0.1' });
  },
  async undici(t, using, options) {
    const guard = tokenward(using, options);
    const dispatcher = new Agent();
    t.after(() => dispatcher.close());
    return serve(t, (req, res) =>
      guard(req, res, async () => {
        const headers = forwardHeaders(req, req.tokenward ?? null).flat();
        const body = req.method === 'GET' ? null : req;
        const answer = await undiciRequest(here.upstream.url + req.url, { method: req.method, headers, body, dispatcher });
        for (const [name, value] of Object.entries(answer.headers)) res.setHeader(name, value);
        res.writeHead(answer.statusCode);
        answer.body.pipe(res);
      }),
    );
  },
};

for (const [name, start] of Object.entries(HOSTS)) {
  const send = (url, token, more = {}) => request(url, { ...more, headers: [bearer(token), ...(more.headers ?? [])] });

  test(`${name}: a request goes on with what may be told, and without its credential`, async (t) => {
    const url = await start(t, introspector());
    const token = await here.as.userToken('alice');
    const spoofed = [
      ['X-Consumer-ID', 'root'],
      ['x-consumer-id', 'root2'],
      ['X_Consumer_Username', 'root'],
      ['X-Credential-Admin', 'true'],
      ['X-Request-Id', '7'],
    ];
    const expected = { ...ALICE, ...credential(await here.as.introspect(token)) };
    for (const path of ['/a?b=1', '/a?b=2']) {
      const answer = await send(url, token, { path, headers: spoofed });
      assert.equal(answer.status, 200, answer.body);
      const got = answer.json();
      assert.equal(got.url, path);
      assert.deepEqual(managed(got), expected);
      assert.deepEqual(values(got, 'authorization'), []);
      assert.deepEqual(values(got, 'x-request-id'), ['7']);
      if (got.parsed) {
        assert.deepEqual(managed({ headers: Object.entries(got.parsed) }), expected);
        assert.equal(got.parsed.authorization, undefined);
        assert.equal(got.distinct['x-consumer-id'].length, 1);
        assert.equal(got.distinct.authorization, undefined);
        assert.equal(got.consumer, CONSUMERS[0].id);
      }
    }
    assert.ok(!(await send(url, token)).body.includes(token));
  });

  test(`${name}: what is not authenticated is refused and reaches nobody`, async (t) => {
    const url = await start(t, introspector({ require: { scopes: ['api:read'] } }));
    const before = here.upstream.requests.length;
    assertRefused(await request(url), 'missing');
    assertRefused(await send(url, 'nobody-issued-this'), 'invalid');
    assertRefused(await request(url, { headers: [bearer('a'), bearer('b')] }), 'malformed');
    assertRefused(await send(url, await here.as.userToken('alice', 'openid')), 'scope');
    assertRefused(await request(url, { method: 'POST', body: 'x'.repeat(100_000) }), 'missing');
    const head = await exchange(url, 'HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
    assert.match(head, /^HTTP\/1\.1 401 [^]*\r\n\r\n$/);
    assert.equal(here.upstream.requests.length, before);
  });

  test(`${name}: an outage is 503, an unexpected error 500, and neither passes`, async (t) => {
    const broken = new Introspector({ introspection_url: 'http://127.0.0.1:9/', authorization_value: 'x' }, );
    assertRefused(await send(await start(t, broken), 'abc'), 'unavailable');
    const throws = () => {
      throw new Error('of the user');
    };
    const before = here.upstream.requests.length;
    const answer = await send(await start(t, introspector(), { policy: throws }), await here.as.userToken('alice'));
    assert.equal(answer.status, 500);
    assert.equal(answer.json().error, 'server_error');
    assert.equal((await send(await start(t, introspector(), { exclude: throws }), 'abc')).status, 500);
    assert.equal(here.upstream.requests.length, before);
  });

  test(`${name}: paths that are excluded pass without a token, and without headers of ours`, async (t) => {
    const exclude = ['/health', '/public/*', /^\/v\d+\/status$/];
    const url = await start(t, introspector(), { exclude });
    for (const path of ['/health', '/health?a', '/public/a/b', '/v2/status']) {
      const answer = await request(url, { path, headers: [['X-Consumer-ID', 'root'], ['x_credential_sub', 'root']] });
      assert.equal(answer.status, 200, path);
      assert.deepEqual(managed(answer.json()), {}, path);
    }
    for (const path of ['/healthy', '/public', '/public/../a', '/public/%2e%2e/a', '/public//a', '/public/..', '/public/a%2fb', '/v2/status/', '/publicity/a']) {
      assertRefused(await request(url, { path }), 'missing');
    }
  });

  test(`${name}: a token in the query is cut out, and makes the answer private`, async (t) => {
    const url = await start(t, introspector({ token_from: ['header', 'query'] }));
    const token = await here.as.userToken('alice');
    const answer = await request(url, { path: `/cacheable?a=%41&access_token=${token}&b` });
    assert.equal(answer.status, 200, answer.body);
    assert.equal(answer.json().url, '/cacheable?a=%41&b');
    assert.ok(!answer.body.includes(token), answer.body);
    if (name !== 'undici' && !name.includes('proxy')) assert.equal(answer.headers['cache-control'], 'private, max-age=60');
    assert.match(answer.headers['cache-control'], /private/);
    assert.doesNotMatch(answer.headers['cache-control'], /public/);
  });

  test(`${name}: a token in a form is cut out, and the rest of the body goes on`, async (t) => {
    const url = await start(t, introspector({ token_from: ['header', 'body'] }));
    const token = await here.as.userToken('alice');
    const headers = [['Content-Type', 'application/x-www-form-urlencoded']];
    const body = `a=%41&access_token=${token}&b=+2`;
    const chunks = (req) => req.write(body.slice(0, 9), () => setTimeout(() => req.end(body.slice(9)), 20));
    for (const sent of [body, chunks]) {
      const answer = await request(url, { method: 'POST', headers, body: sent });
      assert.equal(answer.status, 200, answer.body);
      assert.equal(answer.json().body, 'a=%41&b=+2');
      assert.deepEqual(values(answer.json(), 'content-length'), ['10']);
    }
    const only = await request(url, { method: 'POST', headers, body: `access_token=${token}` });
    assert.equal(only.status, 200, only.body);
    assert.equal(only.json().body, '');
    assertRefused(await request(url, { method: 'POST', headers, body: 'a=1' }), 'missing');
    assertRefused(await request(url, { method: 'POST', headers, body: '' }), 'missing');
    const other = await send(url, token, { method: 'POST', headers, body: 'a=1' });
    assert.equal(other.json().body, 'a=1');
  });

  test(`${name}: Connection cannot take away what is set`, async (t) => {
    const url = await start(t, introspector());
    const token = await here.as.userToken('alice');
    const answer = await send(url, token, { headers: [['Connection', 'close, X-Consumer-ID, x_credential_sub'], ['X-Consumer-ID', 'root']] });
    assert.equal(answer.status, 200, answer.body);
    assert.deepEqual(managed(answer.json()), { ...ALICE, ...credential(await here.as.introspect(token)) });
    assert.doesNotMatch(values(answer.json(), 'connection').join(), /consumer|credential/i);
  });

  test(`${name}: onDeny answers in place of the refusal, and cannot let anybody pass by failing`, async (t) => {
    const isFastify = name.includes('fastify');
    const own = isFastify
      ? (deny, req, reply) => reply.code(418).send({ why: deny.reason })
      : (deny, req, res) => res.writeHead(418, { 'Content-Type': 'application/json' }).end(JSON.stringify({ why: deny.reason }));
    const answer = await request(await start(t, introspector(), { onDeny: own }));
    assert.deepEqual([answer.status, answer.json().why], [418, 'token_missing']);
    for (const failing of [
      () => {
        throw new Error('of the user');
      },
      async () => {
        throw new Error('of the user');
      },
    ]) {
      assertRefused(await request(await start(t, introspector(), { onDeny: failing })), 'missing');
    }
  });
}

test('a client that goes away harms no other, and its request goes no further', async (t) => {
  for (const name of ['http', 'express', 'fastify']) {
    const release = here.as.hold();
    const token = await here.as.userToken('alice');
    const url = await HOSTS[name](t, introspector());
    const calls = here.as.calls.length;
    const asking = http.get(url, { headers: { authorization: `Bearer ${token}` }, agent: false });
    asking.on('error', () => {});
    await eventually('the first one asks', () => here.as.calls.length === calls + 1);
    const waiting = request(url, { headers: [bearer(token)] });
    await new Promise((resolve) => setTimeout(resolve, 50));
    asking.destroy();
    await eventually('the second one asks', () => here.as.calls.length === calls + 2);
    release();
    assert.equal((await waiting).status, 200);
  }
});

test('trailers cannot become headers of ours', async (t) => {
  const url = await HOSTS.http(t, introspector());
  const token = await here.as.userToken('alice');
  const answer = await exchange(
    url,
    `POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n` +
      '3\r\nabc\r\n0\r\nX-Consumer-ID: root\r\nX-Other: 1\r\nx_credential_sub: root\r\n\r\n',
  );
  assert.match(answer, /"trailers":\["X-Other","1"\]/);
  assert.doesNotMatch(answer, /root/);
});

test('lines of one name stay apart on their way to an upstream', async (t) => {
  const as = await endpoint(t, { active: true, username: 'alice', aud: ['a, b', 'c'] });
  const repeating = () =>
    new Introspector({ introspection_url: as.url, authorization_value: 'x', array_format: 'repeat' }, { consumers: CONSUMERS });
  for (const name of ['http', 'express', 'fastify', 'http-proxy-middleware', '@fastify/http-proxy', 'undici']) {
    const answer = await request(await HOSTS[name](t, repeating()), { headers: [bearer('abc')] });
    assert.deepEqual(values(answer.json(), 'x-credential-aud'), ['a, b', 'c'], name);
  }
});

test('WebSockets are authenticated like any request', async (t) => {
  const token = await here.as.userToken('alice');
  for (const name of ['http-proxy-middleware', '@fastify/http-proxy']) {
    const url = await HOSTS[name](t, introspector());
    here.upstream.upgrades.length = 0;
    const begin = (lines) =>
      'GET /live HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade, X-Consumer-ID\r\nUpgrade: websocket\r\nX-Consumer-ID: root\r\n' +
      `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n${lines}\r\n`;
    const refused = await exchange(url, begin(''), { on: [[/\r\n\r\n/, null]] });
    assert.match(refused, /^HTTP\/1\.1 401 /, name);
    assert.equal(here.upstream.upgrades.length, 0);
    // The upstream of these tests knows no WebSocket, only upgrades: what reached it is what counts.
    const passed = exchange(url, begin(`Authorization: Bearer ${token}\r\n`), { on: [[/\r\n\r\n/, null]] }).catch(() => {});
    await eventually(`${name} passes it on`, () => here.upstream.upgrades.length === 1);
    const [upgrade] = here.upstream.upgrades;
    assert.deepEqual(managed(upgrade), { ...ALICE, ...credential(await here.as.introspect(token)) }, name);
    assert.deepEqual(values(upgrade, 'authorization'), [], name);
    await passed;
  }
});

test('a route of Fastify may have a policy of its own, or none', async (t) => {
  const using = introspector();
  const app = Fastify();
  await app.register(plugin, { introspector: using });
  const who = async (request) => ({ consumer: request.tokenward?.consumer.id ?? null });
  app.get('/open', { config: { tokenward: false } }, who);
  app.get('/admin', { config: { tokenward: { policy: using.policy({ require: { scopes: ['admin'] } }) } } }, who);
  app.get('/', who);
  t.after(() => app.close());
  const url = await app.listen({ port: 0, host: '127.0.0.1' });
  const token = await here.as.userToken('alice');
  const send = (path) => request(url, { path, headers: [bearer(token)] });
  assert.deepEqual((await send('/')).json(), { consumer: CONSUMERS[0].id });
  assert.deepEqual((await request(url, { path: '/open' })).json(), { consumer: null });
  assertRefused(await send('/admin'), 'scope');
  assertRefused(await request(url, { path: '/nowhere' }), 'missing');
  assert.equal((await send('/nowhere')).status, 404);
});

test('what a middleware before has changed of the headers stays changed', async (t) => {
  const guard = tokenward(introspector());
  const token = await here.as.userToken('alice');
  for (const change of [
    (headers) => (headers['x-request-id'] = 'mine'),
    (headers) => delete headers['x-request-id'],
    (headers) => (headers['x-added'] = '1'),
    (headers) => (headers['x-consumer-id'] = 'root'),
    () => {},
  ]) {
    let expected;
    const url = await serve(t, (req, res) => {
      change(req.headers);
      const { authorization, ...others } = req.headers;
      expected = { ...others, ...ALICE };
      void req.headersDistinct;
      guard(req, res, () => tell(req, res));
    });
    const { parsed, distinct } = (await request(url, { headers: [bearer(token), ['X-Request-Id', '7']] })).json();
    const { ...found } = parsed;
    for (const name of Object.keys(found)) if (name.startsWith('x-credential-')) delete found[name];
    assert.deepEqual(found, expected);
    assert.deepEqual(distinct['x-consumer-id'], [ALICE['x-consumer-id']]);
    assert.equal(distinct.authorization, undefined);
  }
});

test('options that cannot be meant are errors when the adapter is made', async () => {
  const using = introspector();
  for (const options of [{ exclude: 'health' }, { exclude: '/a/*/b' }, { exclude: /a/g }, { onDeny: 1 }, { policy: {} }]) {
    assert.throws(() => tokenward(using, options), TypeError);
    assert.throws(() => guardUpgrade(using, () => {}, options), TypeError);
    await assert.rejects(async () => Fastify().register(plugin, { introspector: using, ...options }), TypeError);
  }
  assert.throws(() => tokenward({}), TypeError);
});

test('an answer for one client alone is made of any Cache-Control', () => {
  for (const [value, expected] of [
    [undefined, 'private'],
    ['no-store', 'private, no-store'],
    ['Public, private="a, b", no-cache="x, public", s-maxage=600', 'private, no-cache="x, public"'],
    [['max-age=1', 'public'], 'private, max-age=1'],
  ]) {
    assert.equal(makePrivate(value), expected);
  }
});

test('a body that nobody needs is not waited for', async (t) => {
  const url = new URL(await HOSTS.http(t, introspector({ token_from: ['header', 'body'] })));
  const headers = { 'Content-Type': 'application/json', 'Content-Length': 10 };
  const sent = http.request({ host: url.hostname, port: url.port, method: 'POST', headers });
  sent.on('error', () => {});
  const answered = new Promise((resolve) => sent.on('response', (answer) => resolve(answer.statusCode)));
  sent.flushHeaders();
  assert.equal(await answered, 401);
  sent.destroy();
});
