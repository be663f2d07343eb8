// `check`: the call that JavaScript makes, its failures, its bounds, and many requests at once.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import net from 'node:net';
import { test } from 'node:test';

import { Introspector } from 'tokenward';
import { Agent, fetch as undiciFetch } from 'undici';

import { eventually, listen } from '../gateway/support/parts.js';
import { heldUp, ownTime } from './support/heartbeat.js';
import { CONSUMERS, config, endpoint, requestOf, serve } from './support/servers.js';

const options = { consumers: CONSUMERS };
const TRANSPORTS = {
  'the built-in fetch': () => ({}),
  "undici's fetch": () => ({ fetch: undiciFetch }),
  'a dispatcher': (t) => {
    const dispatcher = new Agent({ keepAliveTimeout: 1_000 });
    t.after(() => dispatcher.close());
    return { dispatcher };
  },
};

/** A server that gives every connection these bytes and closes it; `null`: it says nothing and keeps it. */
async function raw(t, bytes) {
  const server = net.createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', () => (bytes === null ? undefined : socket.end(bytes)));
  });
  const port = await listen(server);
  t.after(() => server.close());
  t.after(() => sockets.forEach((socket) => socket.destroy()));
  const sockets = new Set();
  server.on('connection', (socket) => sockets.add(socket));
  return `http://127.0.0.1:${port}/introspect`;
}

const head = (lines, body = '') => `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n${lines}\r\n${body}`;
const ACTIVE = '{"active":true,"username":"alice"}';

for (const [name, transport] of Object.entries(TRANSPORTS)) {
  test(`${name}: the endpoint is asked as the core says, and an answer decides`, async (t) => {
    const as = await endpoint(t);
    const fields = { custom_introspection_headers: { 'X-Gateway': 'edge' }, introspection_params: { resource: 'a b' }, token_type_hint: 'access_token' };
    const introspector = new Introspector(config(as.url, fields), { ...options, ...transport(t) });
    const decision = await introspector.check(requestOf('abc'));
    assert.equal(decision.consumer.id, '1');
    assert.deepEqual([...as.calls[0]], [['token', 'abc'], ['token_type_hint', 'access_token'], ['resource', 'a b']]);
    const sent = as.headers[0].map((part, i) => (i % 2 === 0 ? part.toLowerCase() : part));
    const value = (header) => sent[sent.indexOf(header) + 1];
    assert.equal(value('authorization'), config('').authorization_value);
    assert.equal(value('content-type'), 'application/x-www-form-urlencoded');
    assert.equal(value('accept'), 'application/json');
    assert.equal(value('accept-encoding'), 'identity');
    assert.equal(value('x-gateway'), 'edge');
  });

  for (const [what, bytes, reason, failure] of [
    ['closes without an answer', '', 'endpoint_unreachable', 'closed'],
    ['speaks no HTTP', 'SMTP ready\r\n\r\n', 'reply_malformed', 'protocol'],
    ['is cut off', head('Content-Length: 100\r\n', '{"active":true'), 'reply_malformed', 'cut_off'],
    ['announces too much', head('Content-Length: 2000\r\n'), 'reply_malformed', 'too_long'],
    ['sends too much', head('', `{"active":true}${' '.repeat(2000)}`), 'reply_malformed', 'too_long'],
    ['does not answer', null, 'endpoint_timed_out', 'timed_out'],
    ['does not end its answer', 'hang', 'endpoint_timed_out', 'timed_out'],
  ]) {
    test(`${name}: a server that ${what} is ${failure}`, async (t) => {
      let url;
      if (bytes === 'hang') {
        url = await serve(t, (req, res) => {
          res.writeHead(200, { 'Content-Type': 'application/json' });
          res.write('{"active":');
        });
      } else url = await raw(t, bytes);
      const lines = [];
      // No shorter than it has to be: the others must not run into it where the machine is busy.
      const timeout = failure === 'timed_out' ? 400 : 5_000;
      const introspector = new Introspector(config(url, { timeout, limits: { reply_bytes: 1000 } }), {
        ...options,
        ...transport(t),
        log: ({ fields, reason: about }) => about && lines.push(fields),
      });
      const began = performance.now();
      const decision = await introspector.check(requestOf('abc'));
      assert.equal(decision.reason, reason);
      assert.equal(lines.at(-1).failure, failure);
      assert.ok(performance.now() - began < 6_000);
      assert.equal(introspector.snapshot().inFlight, 0);
    });
  }

  test(`${name}: nobody there, no such name, and a redirect are failures`, async (t) => {
    const spare = net.createServer();
    const port = await listen(spare);
    await new Promise((resolve) => spare.close(resolve));
    const elsewhere = await endpoint(t);
    const redirect = await serve(t, (req, res) => res.writeHead(307, { Location: elsewhere.url }).end());
    for (const [url, reason, failure] of [
      [`http://127.0.0.1:${port}/`, 'endpoint_unreachable', 'connect'],
      ['https://name.invalid/', 'endpoint_unreachable', 'dns'],
      [redirect.replace('http', 'https'), 'endpoint_unreachable', 'tls'],
      [redirect, 'endpoint_refused', undefined],
    ]) {
      const lines = [];
      const introspector = new Introspector(config(url, { retry: { attempts: 1 } }), {
        ...options,
        ...transport(t),
        log: ({ fields, reason: about }) => about && lines.push(fields),
      });
      assert.equal((await introspector.check(requestOf('abc'))).reason, reason, url);
      assert.equal(lines[0].failure, failure, url);
    }
    assert.equal(elsewhere.calls.length, 0);
  });
}

test('a connection that was closed is tried again, within the attempts', async (t) => {
  let connections = 0;
  const server = createServer((req, res) => {
    req.resume();
    connections += 1;
    if (connections === 1) req.socket.destroy();
    else res.writeHead(200, { 'Content-Type': 'application/json' }).end(ACTIVE);
  });
  const introspector = new Introspector(config(await serve(t, server)), options);
  assert.ok((await introspector.check(requestOf('abc'))).allowed);
  assert.equal(connections, 2);
  assert.equal(introspector.snapshot().introspections, 2);
});

test('a function that does what it should not is a failure, and never an allow', async () => {
  for (const fetch of [
    async () => {
      throw 'nothing';
    },
    () => {
      throw new TypeError('at once');
    },
    async () => undefined,
    async () => ({ status: 200, headers: new Headers(), body: 17 }),
    async () => ({ status: 'active', headers: new Headers(), body: null }),
    async () => Object.assign(new Response(ACTIVE, { headers: { 'content-type': 'application/json' } }), { status: 200 }) && { status: 200, redirected: true, headers: new Headers(), body: null },
  ]) {
    const introspector = new Introspector(config('https://as.example/'), { ...options, fetch });
    const decision = await introspector.check(requestOf('abc'));
    assert.equal(decision.allowed, false);
    assert.ok(decision.status >= 500);
    assert.equal(introspector.snapshot().inFlight, 0);
  }
});

test('1000 concurrent requests with one new token make one call', async (t) => {
  let release;
  const held = new Promise((resolve) => (release = resolve));
  const as = await endpoint(t, async () => {
    await held;
    return ACTIVE;
  });
  const introspector = new Introspector(config(as.url), options);
  const checks = Array.from({ length: 1000 }, () => introspector.check(requestOf('abc')));
  assert.equal(introspector.snapshot().waits, 999);
  await eventually('the call is there', () => as.calls.length === 1);
  release();
  const decisions = await Promise.all(checks);
  assert.ok(decisions.every((decision) => decision.allowed && decision.consumer.id === '1'));
  assert.deepEqual(decisions.map(({ source }) => source).sort().slice(0, 2), ['endpoint', 'waiting']);
  assert.equal(as.calls.length, 1);
});

test('aborting any of many requests harms no other', async (t) => {
  let release;
  const held = new Promise((resolve) => (release = resolve));
  const as = await endpoint(t, async () => {
    await held;
    return ACTIVE;
  });
  const introspector = new Introspector(config(as.url), options);
  const requests = Array.from({ length: 100 }, () => {
    const controller = new AbortController();
    return { controller, check: introspector.check(requestOf('abc'), { signal: controller.signal }) };
  });
  await eventually('the first call is there', () => as.calls.length === 1);
  // The one that asks, some that wait, and the one that takes over.
  const reason = new Error('went away');
  const gone = [0, 1, 2, 50, 99];
  for (const i of gone) {
    requests[i].controller.abort(reason);
    await assert.rejects(requests[i].check, reason);
  }
  await eventually('somebody else asks', () => as.calls.length >= 2);
  release();
  for (const [i, { check }] of requests.entries()) if (!gone.includes(i)) assert.ok((await check).allowed);
  assert.equal(introspector.snapshot().inFlight, 0);
  const aborted = AbortSignal.abort(reason);
  await assert.rejects(introspector.check(requestOf('def'), { signal: aborted }), reason);
});

test('while the server hangs for 3 s the event loop is not held up', async (t) => {
  const url = await raw(t, null);
  const introspector = new Introspector(config(url, { timeout: 3_000 }), options);
  // What the package does itself, it does each time.
  const each = [];
  while (each.length < 3 && !each.some((longest) => longest < 100)) {
    const began = performance.now();
    const { longest, result } = await heldUp(() =>
      Promise.all(Array.from({ length: 200 }, (_, i) => introspector.check(requestOf(`t${i % 50}`)))),
    );
    const took = performance.now() - began;
    assert.ok(result.every(({ reason }) => reason === 'endpoint_timed_out'));
    assert.ok(took >= 2_990 && took < 6_000, `${took} ms`);
    each.push(longest);
  }
  assert.ok(Math.min(...each) < 100, `the event loop stood for ${each} ms`);
});

test('it is noticed who holds the event loop up, by work or by sleep', async () => {
  const blocks = {
    work() {
      for (const began = ownTime(); ownTime() - began < 150; );
    },
    sleep() {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 150);
    },
  };
  for (const [how, block] of Object.entries(blocks)) {
    const fetch = async () => {
      block();
      throw Object.assign(new Error('no'), { code: 'ECONNREFUSED' });
    };
    const introspector = new Introspector(config('https://as.example/', { retry: { attempts: 1 } }), { ...options, fetch });
    const { longest } = await heldUp(() => introspector.check(requestOf('abc')));
    assert.ok(longest > 100, `${how}: ${longest} ms`);
  }
});

test('a promise is what check gives, whatever it is given', async () => {
  const introspector = new Introspector(config('http://127.0.0.1:9/'), options);
  const check = introspector.check(undefined);
  assert.ok(check instanceof Promise);
  await assert.rejects(check, TypeError);
});
