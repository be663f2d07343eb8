// Running the gateway: files, reloads, metrics, start and end.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { basic, clientAuth } from './support/authorization_server.js';
import { bearer, exchange, request } from './support/client.js';
import { run } from './support/gateway.js';
import { REFUSES_WITHIN, test } from './support/hosts.js';
import { eventually, folder, secrets } from './support/parts.js';
import { ALICE, CONSUMERS, assertRefused, credential, scene } from './support/scene.js';
import { managed, values } from './support/upstream.js';

const here = scene();
const send = (gateway, token, path = '/') => request(gateway.url, { path, headers: [bearer(token)] });

test('new consumers take effect with a reload, and nobody is asked about again', async (t) => {
  const gateway = await here.gateway(t);
  const token = await here.as.userToken('bob');
  const consumer = async () => managed((await send(gateway, token)).json())['x-consumer-id'];
  assert.equal(await consumer(), undefined);
  const config = { introspection_url: here.as.endpoint, client_auth: clientAuth('gateway') };
  await gateway.write({ ...config, consumers: [...CONSUMERS, { id: '4', username: 'bob' }] });
  assert.equal(await consumer(), undefined);
  gateway.signal('SIGHUP');
  await eventually('the new consumer is known', async () => (await consumer()) === '4');
  await gateway.write({ ...config, consumers: CONSUMERS, require: { scopes: ['admin'] } });
  gateway.signal('SIGHUP');
  await eventually('the new requirement is in force', async () => (await send(gateway, token)).status === 403);
  assert.equal(here.as.calls.length, 1);
});

test('a reload that fails says why and changes nothing', async (t) => {
  const gateway = await here.gateway(t);
  const token = await here.as.userToken('alice');
  assert.equal((await send(gateway, token)).status, 200);
  secrets.add('reloaded-s3cret');
  await gateway.write({
    introspection_url: here.as.endpoint,
    authorization_value: 'reloaded-s3cret',
    cache: { negative_tll: 5 },
    ttl: -1,
  });
  gateway.signal('SIGHUP');
  await eventually('every problem is said', () =>
    ['`cache.negative_tll`', '`negative_ttl`', '`ttl`'].every((name) => gateway.stderr.includes(name)),
  );
  for (const broken of ['{', '']) {
    const before = gateway.stderr.length;
    await gateway.write(broken);
    gateway.signal('SIGHUP');
    await eventually('the problem is said', () => /error/.test(gateway.stderr.slice(before)));
  }
  const answer = await send(gateway, token);
  assert.deepEqual(managed(answer.json()), { ...ALICE, ...credential(await here.as.introspect(token)) });
  assert.equal((await send(gateway, await here.as.userToken('alice'))).status, 200);
  assert.equal(here.as.calls.length, 2);
});

test('a reload with other credentials forgets what was answered to the old ones', async (t) => {
  const gateway = await here.gateway(t);
  const token = await here.as.userToken('alice');
  assert.equal((await send(gateway, token)).status, 200);
  await gateway.write({ introspection_url: here.as.endpoint, client_auth: clientAuth('edge'), consumers: CONSUMERS });
  gateway.signal('SIGHUP');
  await eventually(
    'the server is asked again',
    async () => (await send(gateway, token)).status === 200 && here.as.calls.length === 2,
  );
});

test('the metrics count what happened', async (t) => {
  const gateway = await here.gateway(t, {}, { admin: true });
  const token = await here.as.userToken('alice');
  secrets.add('junk-for-the-metrics');
  for (const one of [token, token, token, 'junk-for-the-metrics', 'junk-for-the-metrics']) await send(gateway, one);
  await request(gateway.url);
  const answer = await request(gateway.admin, { path: '/metrics' });
  assert.equal(answer.status, 200);
  assert.match(answer.headers['content-type'], /^text\/plain\b/);
  for (const line of [
    'tokenward_hits_total 2',
    'tokenward_negative_hits_total 1',
    'tokenward_misses_total 2',
    'tokenward_introspections_total 2',
    'tokenward_cache_entries 1',
    'tokenward_cache_negative_entries 1',
    'tokenward_in_flight 0',
    'tokenward_decisions_total{outcome="allow",reason=""} 3',
    'tokenward_decisions_total{outcome="deny",reason="token_inactive"} 2',
    'tokenward_decisions_total{outcome="deny",reason="token_missing"} 1',
    'tokenward_introspection_duration_seconds_count 2',
  ]) {
    assert.ok(answer.body.split('\n').includes(line), `${line}\n${answer.body}`);
  }
  assert.equal((await request(gateway.admin, { path: '/' })).status, 404);
  assertRefused(await request(gateway.url, { path: '/metrics' }), 'missing');
});

const kongFile = (as) => `
_format_version: "3.0"
_transform: true
consumers:
- username: alice
  custom_id: customer-1
  id: ${CONSUMERS[0].id}
- custom_id: reports
  tags: [batch]
services:
- name: orders
  url: http://orders.internal
  routes:
  - name: users
    paths: [/users]
    plugins:
    - name: oauth2-introspection
      config: &config
        introspection_url: ${as.endpoint}
        authorization_value: ${basic('gateway')}
        ttl: 30
        anonymous: ~
        custom_claims_forward: [username]
  - name: batch
    paths: [/batch]
    plugins:
    - name: rate-limiting
      config: {minute: 5}
    - name: oauth2-introspection
      config:
        <<: *config
        consumer_by: client_id
        authorization_value: "{vault://env/tokenward-test-authorization}"
`;

test("a file of Kong's configures a gateway, with what its users are used to", async (t) => {
  const gateway = await here.gateway(t, {}, { config: kongFile(here.as), select: '#route=users' });
  const token = await here.as.userToken('alice');
  const expected = { ...ALICE, ...credential(await here.as.introspect(token)), 'x-credential-username': 'alice' };
  const json = ['Content-Type', 'application/json'];
  const body = `{"a": 1, "access_token": "${token}", "b": [2]}`;
  for (const sent of [
    { headers: [bearer(token)] },
    { headers: [['Authorization', `token ${token}`]] },
    { path: `/?access_token=${token}` },
    { method: 'POST', headers: [json], body },
  ]) {
    const answer = await request(gateway.url, sent);
    assert.equal(answer.status, 200, answer.body);
    const seen = answer.json();
    assert.deepEqual(managed(seen), expected);
    assert.equal(seen.url, '/');
    assert.deepEqual(values(seen, 'authorization'), []);
    if (sent.body)
      assert.deepEqual(
        [JSON.parse(seen.body), values(seen, 'content-length')],
        [{ a: 1, b: [2] }, [String(seen.length)]],
      );
  }
  assert.equal(here.as.calls.length, 1);
});

test("of several plugins in a file of Kong's the one that is named is taken, with its own settings", async (t) => {
  const environment = { TOKENWARD_TEST_AUTHORIZATION: basic('edge') };
  const gateway = await here.gateway(t, {}, { config: kongFile(here.as), select: '#route=batch', environment });
  const token = await here.as.applicationToken();
  const answer = await send(gateway, token);
  assert.equal(answer.status, 200, answer.body);
  const { 'x-consumer-id': id, ...others } = managed(answer.json());
  assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.deepEqual(others, { 'x-consumer-custom-id': 'reports', ...credential(await here.as.introspect(token)) });
});

/** Starts the program with a file of this content and gives how it ended, which it has to do by itself. */
async function runWith(t, content, { name = 'config.json', select = '', environment } = {}) {
  const file = join(await folder((stop) => t.after(stop)), name);
  await writeFile(file, content);
  const began = performance.now();
  const program = run(
    ['--config', file + select, '--listen', '127.0.0.1:0', '--upstream', 'http://127.0.0.1:9'],
    environment,
  );
  t.after(() => program.stop());
  await eventually('the program ends', program.isOver, { within: 20_000, every: 5 });
  const { status } = await program.ended;
  return { status, took: performance.now() - began, stdout: program.stdout, stderr: program.stderr };
}

test('a configuration with mistakes ends the gateway at once, with every one of them', async (t) => {
  secrets.add('s3cret-in-a-bad-file');
  const bad = {
    introspection_url: 'http://as.example/introspect',
    authorization_value: 's3cret-in-a-bad-file',
    ttl: 0,
    cache: { negative_tll: 5 },
    require: { scopes: 'read' },
    limits: { token_bytes: 0 },
    consumers: [
      { id: '1', username: 'a' },
      { id: '1', username: 'b' },
    ],
  };
  // The machine may be busy: the fastest of a few counts.
  const ends = [];
  for (let i = 0; i < 3 && !ends.some(({ took }) => took < REFUSES_WITHIN); i++)
    ends.push(await runWith(t, JSON.stringify(bad)));
  for (const { status, stdout, stderr } of ends) {
    assert.ok(status > 0, stderr);
    assert.equal(stdout, '');
    for (const name of [
      'introspection_url',
      'ttl',
      'cache.negative_tll',
      'negative_ttl',
      'require.scopes',
      'limits.token_bytes',
    ]) {
      assert.ok(stderr.includes(`\`${name}\``), `${name}\n${stderr}`);
    }
  }
  assert.ok(Math.min(...ends.map(({ took }) => took)) < REFUSES_WITHIN, JSON.stringify(ends));
});

const endpoint = { introspection_url: 'https://as.example', authorization_value: 'x' };
const twins = ['a', 'b'].map((username) => ({ id: '1', username }));
const kong = kongFile({ endpoint: 'https://as.example' });
for (const [what, content, options, expected] of [
  ['is no JSON', '{"introspection_url": ', {}, /not JSON/],
  ['has two consumers with one id', { ...endpoint, consumers: twins }, {}, /consumers/],
  [
    'names a secret that is not there',
    { ...endpoint, authorization_value: { env: 'NOT_SET_AT_ALL' } },
    {},
    /NOT_SET_AT_ALL/,
  ],
  ['names roots that are none', { ...endpoint, tls_roots: { file: 'config.json' } }, {}, /tls_roots/],
  ['has several plugins and none is named', kong, { name: 'kong.yaml' }, /users[^]*batch/],
  ['has no plugin for the route that is named', kong, { name: 'kong.yaml', select: '#route=none' }, /none/],
]) {
  test(`a file that ${what} cannot be started with`, async (t) => {
    const text = typeof content === 'string' ? content : JSON.stringify(content);
    const { status, stdout, stderr } = await runWith(t, text, options);
    assert.ok(status > 0, stderr);
    assert.equal(stdout, '');
    assert.match(stderr, expected);
  });
}

test('SIGTERM ends the gateway after the request under way', async (t) => {
  const gateway = await here.gateway(t);
  const token = await here.as.userToken('alice');
  const answer = send(gateway, token, '/held');
  await eventually('the request is under way', () => here.upstream.requests.length === 1);
  gateway.signal('SIGTERM');
  await eventually('nobody is accepted any more', () =>
    request(gateway.url).then(
      () => false,
      (error) => error.code === 'ECONNREFUSED',
    ),
  );
  here.upstream.release();
  assert.equal((await answer).status, 200);
  assert.deepEqual(await gateway.ended, { status: 0, signal: null });
  assert.match(gateway.stdout, /^ready http:\/\/127\.0\.0\.1:\d+\n$/);
});

test('an upstream that cannot be reached is a failure of its own', async (t) => {
  const gateway = await here.gateway(t, {}, { upstream: { url: 'http://127.0.0.1:9' } });
  const answer = await send(gateway, await here.as.userToken('alice'));
  assert.equal(answer.status, 502);
  assertRefused(await request(gateway.url), 'missing');
});

test('a WebSocket is begun like any request, and no other protocol is', async (t) => {
  const gateway = await here.gateway(t);
  const token = await here.as.userToken('alice');
  const begin = (protocol, lines) =>
    `GET /live HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade, X-Consumer-ID\r\nUpgrade: ${protocol}\r\nX-Consumer-ID: root\r\n${lines}\r\n`;
  const authorization = `Authorization: Bearer ${token}\r\n`;
  const talk = {
    on: [
      [/\r\n\r\n/, 'ping'],
      [/ping$/, null],
    ],
  };
  assert.match(
    await exchange(gateway.url, begin('websocket', authorization), talk),
    /^HTTP\/1\.1 101 [^]*\r\n\r\nping$/,
  );
  const [seen] = here.upstream.upgrades;
  assert.deepEqual(managed(seen), { ...ALICE, ...credential(await here.as.introspect(token)) });
  assert.deepEqual(values(seen, 'authorization'), []);
  const end = { on: [[/\r\n\r\n/, null]] };
  assert.match(await exchange(gateway.url, begin('websocket', ''), end), /^HTTP\/1\.1 401 /);
  assert.match(await exchange(gateway.url, begin('h2c', authorization), end), /^HTTP\/1\.1 (?!101)/);
  assert.equal(here.upstream.upgrades.length, 1);
});
