// For how long an answer is good: time to live, expiry, revocation, reload.

import assert from 'node:assert/strict';

import { bearer, request } from './support/client.js';
import { test } from './support/hosts.js';
import { eventually } from './support/parts.js';
import { assertRefused, scene } from './support/scene.js';

const here = scene();

test('a revoked token is refused once its answer is too old, and no sooner asked about', async (t) => {
  const brief = await here.gateway(t, { ttl: 0.4 });
  const long = await here.gateway(t, { ttl: 600 });
  const token = await here.as.applicationToken();
  const send = (gateway) => request(gateway.url, { headers: [bearer(token)] });
  assert.equal((await send(long)).status, 200);
  assert.equal((await send(brief)).status, 200);
  await here.as.revoke(token);
  const revoked = performance.now();
  const answer = await eventually('the revoked token is refused', async () => {
    const began = performance.now();
    const answer = await send(brief);
    assert.ok(answer.status !== 200 || began - revoked < 400, 'reused for longer than ttl');
    return answer.status !== 200 && answer;
  });
  assertRefused(answer, 'invalid');
  assert.equal(here.as.calls.length, 3);
  assert.equal((await send(long)).status, 200);
  assert.equal(here.as.calls.length, 3);
});

test('an expired token is refused from exp on, however long its answer could be reused', async (t) => {
  const gateway = await here.gateway(t, { ttl: 3600 });
  const token = await here.as.applicationToken('hasty');
  const { exp } = await here.as.introspect(token);
  const send = () => request(gateway.url, { headers: [bearer(token)] });
  assert.equal((await send()).status, 200);
  const answer = await eventually('the expired token is refused', async () => {
    const began = Date.now() / 1000;
    const answer = await send();
    const ended = Date.now() / 1000;
    if (began >= exp) assert.notEqual(answer.status, 200, 'allowed after exp');
    if (ended < exp) {
      assert.equal(answer.status, 200, 'refused before exp');
      assert.equal(here.as.calls.length, 1);
    }
    return answer.status !== 200 && answer;
  });
  assertRefused(answer, 'invalid');
});

test('without the cache every request asks', async (t) => {
  const gateway = await here.gateway(t, { cache: { enabled: false } });
  const token = await here.as.applicationToken();
  for (let i = 1; i <= 3; i++) {
    assert.equal((await request(gateway.url, { headers: [bearer(token)] })).status, 200);
    assert.equal(here.as.calls.length, i);
  }
  await here.as.revoke(token);
  assertRefused(await request(gateway.url, { headers: [bearer(token)] }), 'invalid');
});

test('with introspect_request the server is told path and method, and each pair is a question of its own', async (t) => {
  const gateway = await here.gateway(t, {
    introspect_request: true,
    custom_introspection_headers: { 'X-Gateway': 'edge-1' },
  });
  const token = await here.as.applicationToken();
  const about = [
    ['GET', '/a%20b?c=1'],
    ['GET', '/a%20b?c=2'],
    ['DELETE', '/a%20b'],
    ['GET', '/'],
  ];
  for (const [method, path] of about) {
    assert.equal((await request(gateway.url, { method, path, headers: [bearer(token)] })).status, 200);
  }
  const told = here.as.calls.map(({ headers }) => [
    headers['x-request-http-method'],
    headers['x-request-path'],
    headers['x-gateway'],
  ]);
  assert.deepEqual(told, [
    ['GET', '/a%20b', 'edge-1'],
    ['DELETE', '/a%20b', 'edge-1'],
    ['GET', '/', 'edge-1'],
  ]);
});
