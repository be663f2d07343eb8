// Who gets through, and what the upstream is told about them.

import assert from 'node:assert/strict';

import { bearer, exchange, request } from './support/client.js';
import { test } from './support/hosts.js';
import { secrets } from './support/parts.js';
import { ALICE, GUEST, assertRefused, credential, scene } from './support/scene.js';
import { managed, values } from './support/upstream.js';

const here = scene();
const JUNK = 'junk-2YotnFZFEjr1zCsicMWpAA';
secrets.add(JUNK);

test('a request without a token is challenged and asks nobody', async (t) => {
  const gateway = await here.gateway(t);
  assertRefused(await request(gateway.url), 'missing');
  assertRefused(await request(gateway.url, { headers: [['Authorization', 'Basic dXNlcjpwYXNz']] }), 'missing');
  assert.equal(here.as.calls.length, 0);
  assert.equal(here.upstream.requests.length, 0);
});

test("an application's token is matched by its client_id, asked about once, and hidden", async (t) => {
  const gateway = await here.gateway(t, { consumer_by: 'client_id' });
  const token = await here.as.applicationToken();
  const send = () => request(gateway.url, { path: '/orders?id=7', headers: [bearer(token), ['X-Mine', 'kept']] });
  const answer = await send();
  assert.equal(answer.status, 200, answer.body);
  const seen = answer.json();
  assert.equal(seen.url, '/orders?id=7');
  assert.deepEqual(managed(seen), {
    'x-consumer-id': '2',
    'x-consumer-custom-id': 'reports',
    'x-consumer-username': 'reporting',
    ...credential(await here.as.introspect(token)),
  });
  assert.deepEqual(values(seen, 'authorization'), []);
  assert.deepEqual(values(seen, 'x-mine'), ['kept']);
  assert.ok(!answer.body.includes(token));

  assert.deepEqual(managed((await send()).json()), managed(seen));
  assert.equal(here.as.calls.length, 1);
});

test("a user's token is matched by its username, with the claims that are asked for", async (t) => {
  const gateway = await here.gateway(t, { custom_claims_forward: ['/team/name', 'team', 'absent'] });
  const token = await here.as.userToken('alice');
  const answer = await request(gateway.url, { headers: [bearer(token)] });
  assert.equal(answer.status, 200, answer.body);
  assert.deepEqual(managed(answer.json()), {
    ...ALICE,
    ...credential(await here.as.introspect(token)),
    'x-credential-team-name': 'blue',
    'x-credential-team': '{"name":"blue"}',
  });
});

test('a user that is no consumer is let through without consumer headers, unless one is required', async (t) => {
  const token = await here.as.userToken('Zoë');
  const open = await here.gateway(t);
  const seen = (await request(open.url, { headers: [bearer(token)] })).json();
  const encoded = "UTF-8''Zo%C3%AB";
  const expected = {
    ...credential(await here.as.introspect(token)),
    'x-credential-sub': encoded,
    'x-credential-identifier': encoded,
  };
  assert.deepEqual(managed(seen), expected);
  const strict = await here.gateway(t, { require: { consumer: true } });
  assertRefused(await request(strict.url, { headers: [bearer(token)] }), 'consumer');
});

test('the credential reaches the upstream only if it is not to be hidden', async (t) => {
  const gateway = await here.gateway(t, { hide_credentials: false });
  const token = await here.as.userToken('alice');
  const answer = await request(gateway.url, { headers: [bearer(token)] });
  assert.deepEqual(values(answer.json(), 'authorization'), [`Bearer ${token}`]);
});

test('headers that only the gateway may set are removed in every spelling', async (t) => {
  const gateway = await here.gateway(t);
  const token = await here.as.userToken('alice');
  const spoofed = [
    ['X-Consumer-ID', 'root'],
    ['X_Consumer_ID', 'root'],
    ['x-consumer-groups', 'admins'],
    ['X-CONSUMER.USERNAME', 'root'],
    ['x-credential.sub', 'root'],
    ['X-Credential_Scope', 'admin'],
    ['X-Credential-Invented', 'admin'],
    ['X-Anonymous-Consumer', 'true'],
    ['x_anonymous.consumer', 'true'],
  ];
  const kept = [
    ['X-Consumer', 'kept'],
    ['X-Credentials-Of', 'kept'],
  ];
  const seen = (await request(gateway.url, { headers: [bearer(token), ...spoofed, ...kept] })).json();
  assert.deepEqual(managed(seen), { ...ALICE, ...credential(await here.as.introspect(token)) });
  for (const [name, value] of kept) assert.deepEqual(values(seen, name), [value]);
});

test('Connection cannot take away what the gateway sets, nor let through what it removes', async (t) => {
  const gateway = await here.gateway(t);
  const token = await here.as.userToken('alice');
  const headers = [
    bearer(token),
    ['Connection', 'close, X-Consumer-ID, x-credential-sub, Authorization'],
    ['X-Consumer-ID', 'root'],
    ['X_Consumer_Username', 'root'],
  ];
  const answer = await request(gateway.url, { headers });
  assert.equal(answer.status, 200, answer.body);
  assert.deepEqual(managed(answer.json()), { ...ALICE, ...credential(await here.as.introspect(token)) });
  assert.deepEqual(values(answer.json(), 'authorization'), []);
});

test('a trailer cannot become a header of ours', async (t) => {
  const gateway = await here.gateway(t);
  const token = await here.as.userToken('alice');
  const answer = await exchange(
    gateway.url,
    `POST / HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer ${token}\r\nConnection: close\r\nTrailer: X-Consumer-ID\r\n` +
      'Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Consumer-ID: root\r\nX_Credential_Sub: root\r\n\r\n',
  );
  assert.match(answer, /^HTTP\/1\.1 200 /);
  const [seen] = here.upstream.requests;
  assert.deepEqual(managed(seen), { ...ALICE, ...credential(await here.as.introspect(token)) });
  assert.ok(!JSON.stringify(seen.trailers).includes('root'));
});

test('a token nobody issued is refused, and remembered as such', async (t) => {
  const gateway = await here.gateway(t);
  for (let i = 0; i < 3; i++) assertRefused(await request(gateway.url, { headers: [bearer(JUNK)] }), 'invalid');
  assert.equal(here.as.calls.length, 1);
  assert.equal(here.upstream.requests.length, 0);
});

test('a malformed Authorization is refused without asking', async (t) => {
  const gateway = await here.gateway(t);
  const token = await here.as.userToken('alice');
  for (const headers of [
    [['Authorization', `Bearer ${token}, Basic eDp5`]],
    [['Authorization', `Bearer ${token} ${token}`]],
    [['Authorization', `Bearer\t${token}`]],
    [['Authorization', 'Bearer']],
    [['Authorization', 'Bearer "quoted"']],
    [bearer('a'.repeat(16_385))],
  ]) {
    assertRefused(await request(gateway.url, { headers }), 'malformed');
  }
  assert.equal(here.as.calls.length, 0);
  assert.equal((await request(gateway.url, { headers: [['authorization', `bEaReR   ${token} `]] })).status, 200);
});

test('two Authorization lines are refused, by the gateway or by the server that it lives in', async (t) => {
  const gateway = await here.gateway(t);
  const token = await here.as.userToken('alice');
  const answer = await request(gateway.url, { headers: [bearer(token), bearer(token)] });
  assert.equal(answer.status, 400, answer.body);
  assert.equal(here.as.calls.length, 0);
  assert.equal(here.upstream.requests.length, 0);
});

test('scopes that are required are compared as whole words', async (t) => {
  const gateway = await here.gateway(t, { require: { scopes: ['api:read api:write', 'admin'] } });
  const both = await here.as.applicationToken('reports', 'api:write api:read');
  const one = await here.as.applicationToken('reports', 'api:read');
  assert.equal((await request(gateway.url, { headers: [bearer(both)] })).status, 200);
  for (let i = 0; i < 2; i++) {
    const answer = await request(gateway.url, { headers: [bearer(one)] });
    assertRefused(answer, 'scope');
    assert.equal(
      answer.headers['www-authenticate'],
      'Bearer realm="service", error="insufficient_scope", scope="api:read api:write"',
    );
  }
  assert.equal(here.as.calls.length, 2);
});

test('failed authentication becomes the anonymous consumer, and a missing scope does not', async (t) => {
  const gateway = await here.gateway(t, { anonymous: 'guest', require: { scopes: ['api:write'] } });
  const cases = [
    [],
    [bearer(JUNK)],
    [['Authorization', 'Bearer "quoted"']],
    [
      ['X-Consumer-Username', 'root'],
      ['X_Credential_Sub', 'root'],
    ],
  ];
  for (const headers of cases) {
    const answer = await request(gateway.url, { headers });
    assert.equal(answer.status, 200, answer.body);
    assert.deepEqual(managed(answer.json()), GUEST);
    assert.deepEqual(values(answer.json(), 'authorization'), []);
  }
  const headers = [bearer(await here.as.applicationToken('reports', 'api:read'))];
  assertRefused(await request(gateway.url, { headers }), 'scope');
});

test('an anonymous consumer that does not exist lets nobody through', async (t) => {
  const gateway = await here.gateway(t, { anonymous: 'nobody' });
  const answer = await request(gateway.url);
  assert.equal(answer.status, 500);
  assert.equal(answer.json().error_description, 'The anonymous consumer is not configured');
  await gateway.says(/anonymous/);
  assert.equal(here.upstream.requests.length, 0);
});

test('a preflight passes without a token where it is told to, and without anything of ours', async (t) => {
  const gateway = await here.gateway(t, { run_on_preflight: false });
  const preflight = [
    ['Origin', 'https://app.example'],
    ['Access-Control-Request-Method', 'PUT'],
  ];
  const options = (headers) => request(gateway.url, { method: 'OPTIONS', headers });
  const answer = await options([...preflight, bearer(JUNK), ['X-Consumer-ID', 'root']]);
  assert.equal(answer.status, 200, answer.body);
  assert.deepEqual(managed(answer.json()), {});
  assert.deepEqual(values(answer.json(), 'authorization'), []);
  assertRefused(await options([]), 'missing');
  assert.equal(here.as.calls.length, 0);
});

test('Connection that lists what the request is made of is refused', async (t) => {
  const gateway = await here.gateway(t);
  const token = await here.as.userToken('alice');
  for (const listed of ['close, Host', 'close, Content-Encoding', 'content-type, close']) {
    const answer = await request(gateway.url, { headers: [bearer(token), ['Connection', listed]] });
    assert.equal(answer.status, 400, listed);
  }
});
