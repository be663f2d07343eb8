// Where a token may be, and that it does not go further; bodies on their way through.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';

import { bearer, exchange, request } from './support/client.js';
import { test } from './support/hosts.js';
import { eventually } from './support/parts.js';
import { ALICE, assertRefused, credential, scene } from './support/scene.js';
import { managed, values } from './support/upstream.js';

const here = scene();
const FORM = ['Content-Type', 'application/x-www-form-urlencoded'];

test('a token in the query is read where it may be, cut out, and makes the answer private', async (t) => {
  const gateway = await here.gateway(t, { token_from: ['header', 'query'] });
  const token = await here.as.userToken('alice');
  for (const [path, expected] of [
    [`/cacheable?a=%41&access_token=${token}&b=+2`, '/cacheable?a=%41&b=+2'],
    [`/cacheable?access_token=${token}`, '/cacheable'],
    [`/cacheable?access%5Ftoken=${token}&a`, '/cacheable?a'],
  ]) {
    const answer = await request(gateway.url, { path });
    assert.equal(answer.status, 200, answer.body);
    assert.equal(answer.json().url, expected);
    assert.deepEqual(managed(answer.json()), { ...ALICE, ...credential(await here.as.introspect(token)) });
    const directives = answer.headers['cache-control'].split(/, */);
    assert.ok(directives.includes('private') && !directives.includes('public'), answer.headers['cache-control']);
  }
  const plain = await request(gateway.url, { path: '/cacheable', headers: [bearer(token)] });
  assert.equal(plain.headers['cache-control'], 'public, max-age=60');
  assert.equal(here.as.calls.length, 1);
});

test('tokens in two places, or one given twice, are refused', async (t) => {
  const gateway = await here.gateway(t, { token_from: ['header', 'query'] });
  const token = await here.as.userToken('alice');
  assertRefused(await request(gateway.url, { path: `/?access_token=${token}`, headers: [bearer(token)] }), 'malformed');
  assertRefused(await request(gateway.url, { path: `/?access_token=${token}&access_token=${token}` }), 'malformed');
  assert.equal(here.as.calls.length, 0);
});

test('a token in a query that is not read is no token, and is hidden all the same', async (t) => {
  const gateway = await here.gateway(t);
  const token = await here.as.userToken('alice');
  assertRefused(await request(gateway.url, { path: `/?access_token=${token}` }), 'missing');
  const answer = await request(gateway.url, { path: `/a?access_token=${token}&b=1`, headers: [bearer(token)] });
  assert.equal(answer.status, 200, answer.body);
  assert.equal(answer.json().url, '/a?b=1');
});

test('a token in a form is read where it may be, and cut out with the right length', async (t) => {
  const gateway = await here.gateway(t, { token_from: ['header', 'body'] });
  const token = await here.as.userToken('alice');
  const body = `a=%41&access_token=${token}&b=+2`;
  for (const sent of [body, async (request) => request.write(body.slice(0, 20), () => request.end(body.slice(20)))]) {
    const answer = await request(gateway.url, { method: 'POST', headers: [FORM], body: sent });
    assert.equal(answer.status, 200, answer.body);
    const seen = answer.json();
    assert.equal(seen.body, 'a=%41&b=+2');
    assert.deepEqual(values(seen, 'content-length'), ['10']);
    assert.deepEqual(values(seen, 'transfer-encoding'), []);
    assert.deepEqual(managed(seen), { ...ALICE, ...credential(await here.as.introspect(token)) });
  }
  assertRefused(await request(gateway.url, { method: 'POST', headers: [FORM], body: 'a=1' }), 'missing');
  const only = await request(gateway.url, { method: 'POST', headers: [FORM], body: `access_token=${token}` });
  assert.deepEqual([only.json().body, values(only.json(), 'content-length')], ['', ['0']]);
});

test('a body that is not read is not changed', async (t) => {
  const gateway = await here.gateway(t);
  const token = await here.as.userToken('alice');
  const body = 'a=1&access_token=not-ours';
  const answer = await request(gateway.url, { method: 'POST', headers: [FORM, bearer(token)], body });
  assert.equal(answer.json().body, body);
  assertRefused(
    await request(gateway.url, { method: 'POST', headers: [FORM], body: `access_token=${token}` }),
    'missing',
  );
});

test('five MiB go through', async (t) => {
  const token = await here.as.userToken('alice');
  const body = randomBytes(5 << 20);
  const sha256 = createHash('sha256').update(body).digest('hex');
  for (const fields of [{}, { token_from: ['header', 'body'] }]) {
    const gateway = await here.gateway(t, fields);
    for (const type of ['application/octet-stream', FORM[1]]) {
      const headers = [bearer(token), ['Content-Type', type]];
      const answer = await request(gateway.url, { method: 'PUT', headers, body });
      assert.equal(answer.status, 200, answer.body);
      assert.equal(answer.json().length, body.length);
      assert.equal(answer.json().sha256, sha256);
    }
  }
});

test('a body reaches the upstream while it is still being sent', async (t) => {
  const gateway = await here.gateway(t);
  const token = await here.as.userToken('alice');
  const half = Buffer.alloc(100_000, 'x');
  const answer = await request(gateway.url, {
    method: 'POST',
    headers: [bearer(token)],
    body: async (request) => {
      request.write(half);
      await eventually('the first half is there', () => here.upstream.requests[0]?.received === half.length);
      request.end(half);
    },
  });
  assert.equal(answer.json().length, 2 * half.length);
});

test('the upload of a refused request does not hinder the refusal', async (t) => {
  const gateway = await here.gateway(t);
  assertRefused(await request(gateway.url, { method: 'POST', body: Buffer.alloc(1 << 20) }), 'missing');
});

test('a target in absolute form is read and rewritten like any other', async (t) => {
  const gateway = await here.gateway(t, { token_from: ['query'] });
  const token = await here.as.userToken('alice');
  const bytes = `GET http://a.example/p?access_token=${token}&b HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n`;
  assert.match(await exchange(gateway.url, bytes), /^HTTP\/1\.1 200 /);
  const [{ url, headers }] = here.upstream.requests;
  assert.match(url, /^(http:\/\/a\.example)?\/p\?b$/);
  assert.ok(!JSON.stringify(headers).includes(token));
});

test('a client that asks before it sends a body is told to go on, or is refused', async (t) => {
  const gateway = await here.gateway(t);
  const token = await here.as.userToken('alice');
  const put = (lines) =>
    `PUT / HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n${lines}\r\n`;
  assert.match(await exchange(gateway.url, put('')), /^HTTP\/1\.1 401 /);
  const allowed = await exchange(gateway.url, put(`Authorization: Bearer ${token}\r\n`), {
    on: [[/^HTTP\/1\.1 100 /, 'hi']],
  });
  assert.match(allowed, /^HTTP\/1\.1 100 [^]*HTTP\/1\.1 200 /);
  assert.equal(here.upstream.requests[0].received, 2);
});

test('a request that can be read in two ways is not passed on', async (t) => {
  const gateway = await here.gateway(t);
  const token = await here.as.userToken('alice');
  for (const lines of [
    'Content-Length: 3\r\nContent-Length: 5',
    'Transfer-Encoding: xchunked',
    'Transfer-Encoding: chunked, identity',
    'Content-Length: +3',
    'X-Consumer-ID : root',
    'Host: another',
  ]) {
    const bytes = `POST / HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer ${token}\r\n${lines}\r\n\r\nabc`;
    assert.match(await exchange(gateway.url, bytes, { half: true }), /^HTTP\/1\.1 [45]\d\d /, lines);
  }
  assert.equal(here.upstream.requests.length, 0);
});

test('an answer to HEAD has no body', async (t) => {
  const gateway = await here.gateway(t);
  const token = await here.as.userToken('alice');
  const head = (line) => exchange(gateway.url, `HEAD / HTTP/1.1\r\nHost: gateway\r\n${line}Connection: close\r\n\r\n`);
  const refused = await head('');
  assert.match(refused, /^HTTP\/1\.1 401 /);
  assert.match(refused, /\r\nwww-authenticate: Bearer realm="service"\r\n/i);
  const allowed = await head(`Authorization: Bearer ${token}\r\n`);
  assert.match(allowed, /^HTTP\/1\.1 200 /);
  for (const answer of [refused, allowed]) assert.ok(answer.indexOf('\r\n\r\n') === answer.length - 4, answer);
});

test('a connection serves several requests, each on its own', async (t) => {
  const gateway = await here.gateway(t);
  const token = await here.as.userToken('alice');
  const get = (lines) => `GET / HTTP/1.1\r\nHost: gateway\r\n${lines}\r\n`;
  const authorization = `Authorization: Bearer ${token}\r\n`;
  const refusedPost = 'POST / HTTP/1.1\r\nHost: gateway\r\nContent-Length: 3\r\n\r\nabc';
  const bytes = get(authorization) + get('') + refusedPost + get(authorization) + get('Connection: close\r\n');
  const answers = await exchange(gateway.url, bytes);
  assert.deepEqual(
    answers.match(/HTTP\/1\.1 \d+/g),
    [200, 401, 401, 200, 401].map((status) => `HTTP/1.1 ${status}`),
  );
});
