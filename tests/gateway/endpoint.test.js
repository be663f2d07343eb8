// The gateway and its authorization server: credentials, outages, one question for many, TLS.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { join } from 'node:path';

import { clientAuth, startAuthorizationServer } from './support/authorization_server.js';
import { bearer, request } from './support/client.js';
import { test } from './support/hosts.js';
import { close, eventually, folder, listen, secrets } from './support/parts.js';
import { ALICE, assertRefused, credential, scene } from './support/scene.js';
import { managed } from './support/upstream.js';

const here = scene();
const send = (gateway, token, path = '/') => request(gateway.url, { path, headers: [bearer(token)] });

test('credentials that the server refuses are a fault of the gateway, and the log says so without them', async (t) => {
  secrets.add('not-the-s3cret');
  const wrong = { ...clientAuth('gateway'), client_secret: 'not-the-s3cret' };
  const gateway = await here.gateway(t, { client_auth: wrong });
  const token = await here.as.userToken('alice');
  assertRefused(await send(gateway, token), 'unusable');
  assert.deepEqual(
    here.as.calls.map(({ status }) => status),
    [401],
  );
  await gateway.says(/\bendpoint_refused\b.*\bstatus=401\b/);
  for (const hidden of [token, 'not-the-s3cret', Buffer.from('gateway:not-the-s3cret').toString('base64')]) {
    assert.ok(!gateway.stderr.includes(hidden), gateway.stderr);
  }
  // A failure is not remembered.
  assertRefused(await send(gateway, token), 'unusable');
  assert.equal(here.as.calls.length, 2);
});

for (const [id, method, kind] of [
  ['gate:way&1', 'client_secret_basic', 'allowed'],
  ['edge', 'client_secret_basic', 'allowed'],
  ['edge', 'client_secret_basic_raw', 'refused'],
  ['gateway', 'client_secret_basic_raw', 'allowed'],
  ['posting', 'client_secret_post', 'allowed'],
]) {
  test(`the credentials of ${id}, sent as ${method}, are ${kind}`, async (t) => {
    const gateway = await here.gateway(t, { client_auth: clientAuth(id, method) });
    const answer = await send(gateway, await here.as.userToken('alice'));
    if (kind === 'allowed') assert.equal(answer.status, 200, answer.body);
    else assertRefused(answer, 'unusable');
  });
}

test('secrets come from the environment and from files', async (t) => {
  const path = join(await folder((stop) => t.after(stop)), 'secret');
  const { client_secret, ...auth } = clientAuth('edge');
  writeFileSync(path, `${client_secret}\n`);
  const token = await here.as.userToken('alice');
  for (const reference of [{ env: 'TOKENWARD_TEST_SECRET' }, { file: path }]) {
    const fields = { client_auth: { ...auth, client_secret: reference } };
    const gateway = await here.gateway(t, fields, { environment: { TOKENWARD_TEST_SECRET: client_secret } });
    assert.equal((await send(gateway, token)).status, 200);
  }
});

test('an outage turns away those that have to be asked about, lets in those that are known, and ends at once', async (t) => {
  const gateway = await here.gateway(t, { ttl: 600, retry_after: 7, anonymous: 'guest' });
  const [known, fresh] = [await here.as.userToken('alice'), await here.as.userToken('alice')];
  assert.equal((await send(gateway, known)).status, 200);
  await here.as.stop();
  t.after(() => here.as.start());
  const refused = await send(gateway, fresh);
  assertRefused(refused, 'unavailable');
  assert.equal(refused.headers['retry-after'], '7');
  await gateway.says(/\bendpoint_unreachable\b/);
  const allowed = await send(gateway, known);
  assert.equal(allowed.status, 200);
  assert.equal(managed(allowed.json())['x-consumer-username'], 'alice');
  await here.as.start();
  assert.equal((await send(gateway, fresh)).status, 200);
});

test('a server that does not answer costs no more than the timeout', async (t) => {
  const gateway = await here.gateway(t, { timeout: 300 });
  const release = here.as.hold();
  t.after(release);
  const began = performance.now();
  assertRefused(await send(gateway, await here.as.userToken('alice')), 'unavailable');
  const took = performance.now() - began;
  assert.ok(took >= 300 && took < 5_000, `${took} ms`);
  await gateway.says(/\bendpoint_timed_out\b/);
  release();
  assert.equal((await send(gateway, await here.as.userToken('alice'))).status, 200);
});

test('200 requests with one new token ask one question', async (t) => {
  const gateway = await here.gateway(t, {}, { admin: true });
  const token = await here.as.userToken('alice');
  const release = here.as.hold();
  t.after(release);
  const answers = Array.from({ length: 200 }, (_, i) => send(gateway, token, `/${i}`));
  await eventually(
    'all of them are there',
    async () => (await gateway.metric('misses_total')) + (await gateway.metric('waits_total')) === 200,
  );
  release();
  const expected = { ...ALICE, ...credential(await here.as.introspect(token)) };
  for (const [i, answer] of (await Promise.all(answers)).entries()) {
    assert.equal(answer.status, 200, answer.body);
    assert.equal(answer.json().url, `/${i}`);
    assert.deepEqual(managed(answer.json()), expected);
  }
  assert.equal(here.as.calls.length, 1);
});

test('when the client that asks goes away, one that waits takes over', async (t) => {
  const gateway = await here.gateway(t, {}, { admin: true });
  const token = await here.as.userToken('alice');
  const release = here.as.hold();
  t.after(release);
  const asking = http.get(gateway.url, { headers: { authorization: `Bearer ${token}` }, agent: false });
  asking.on('error', () => {});
  await eventually('the first one asks', () => here.as.calls.length === 1);
  const waiting = send(gateway, token);
  await eventually('the second one waits', async () => (await gateway.metric('waits_total')) === 1);
  asking.destroy();
  await eventually('the second one asks', () => here.as.calls.length === 2);
  release();
  assert.equal((await waiting).status, 200);
  assert.equal(here.upstream.requests.length, 1);
});

test('a JWT that the server will not introspect is an invalid token', async (t) => {
  // Since its version 9 oidc-provider answers 400 to every JWT.
  const as = await startAuthorizationServer('oidc-provider-9');
  t.after(() => as.stop());
  const gateway = await here.gateway(t, { introspection_url: as.endpoint });
  const jwt = ['{"alg":"RS256","typ":"at+jwt"}', '{"sub":"alice","iss":"https://elsewhere.example"}', 'signature']
    .map((part) => Buffer.from(part).toString('base64url'))
    .join('.');
  secrets.add(jwt);
  assertRefused(await send(gateway, jwt), 'invalid');
  assert.deepEqual(
    as.calls.map(({ status }) => status),
    [400],
  );
  await gateway.says(/\btoken_inactive\b.*\bstatus=400\b/);
  assertRefused(await send(gateway, jwt), 'invalid');
  assert.equal(as.calls.length, 1);
  const opaque = await send(gateway, await as.userToken('alice'));
  assert.equal(managed(opaque.json())['x-consumer-username'], 'alice');
});

test('odd answers of a server are no reason to let anybody in', async (t) => {
  const odd = {};
  const server = http.createServer((incoming, answer) => {
    incoming.resume();
    answer.writeHead(odd.status ?? 200, { 'Content-Type': 'application/json', ...odd.headers });
    answer.end(odd.body);
  });
  const port = await listen(server);
  t.after(() => close(server));
  const url = `http://127.0.0.1:${port}/introspect`;
  const gateway = await here.gateway(t, { introspection_url: url });
  const active = JSON.stringify({ active: true, username: 'alice' });
  let count = 0;
  for (const [reply, kind] of [
    [{ body: active, headers: { 'Content-Type': 'text/html' } }, 'unusable'],
    [{ body: active, headers: { 'Content-Encoding': 'gzip' } }, 'unusable'],
    [{ body: active, status: 201 }, 'unusable'],
    [{ body: active, status: 302, headers: { Location: here.as.endpoint } }, 'unusable'],
    [{ body: '{"active":"true"}' }, 'unusable'],
    [{ body: '[true]' }, 'unusable'],
    [{ body: '{"active":false,"active":true}' }, 'unusable'],
    [{ body: '{"active":true,"exp":null}' }, 'unusable'],
    [{ body: active.padEnd(1_048_577) }, 'unusable'],
    [{ body: '{"active":false,"username":"alice"}' }, 'invalid'],
    [{ body: '{"active":true,"exp":1419356238}' }, 'invalid'],
    [{ body: '{"active":true,"nbf":4102444800}' }, 'invalid'],
    [{ body: '{"active":true,"cnf":{"jkt":"x"}}' }, 'invalid'],
    [{ body: '{}', status: 500 }, 'unavailable'],
    [{ body: '{}', status: 429, headers: { 'Retry-After': '17' } }, 'unavailable'],
  ]) {
    for (const member in odd) delete odd[member];
    Object.assign(odd, reply);
    const answer = await send(gateway, `odd-token-${count++}`);
    assertRefused(answer, kind);
    if (reply.status === 429) assert.equal(answer.headers['retry-after'], '17');
  }
  assert.equal(here.upstream.requests.length, 0);
  assert.equal(here.as.calls.length, 0);
});

test('an endpoint with TLS is believed only with a certificate of the roots that were given', async (t) => {
  const pki = certificates(await folder((stop) => t.after(stop)));
  const endpoint = async (name) => {
    const server = https.createServer(pki.server(name), here.as.callback);
    const port = await listen(server);
    t.after(() => close(server));
    return `https://localhost:${port}/token/introspection`;
  };
  const [right, misnamed] = [await endpoint('localhost'), await endpoint('elsewhere.example')];
  const token = await here.as.userToken('alice');
  for (const [introspection_url, tls_roots, allowed] of [
    [right, { file: pki.root }, true],
    [right, { file: pki.otherRoot }, false],
    [right, 'system', false],
    [misnamed, { file: pki.root }, false],
  ]) {
    const gateway = await here.gateway(t, { introspection_url, tls_roots });
    const answer = await send(gateway, token);
    if (allowed) {
      assert.equal(answer.status, 200, answer.body);
    } else {
      assertRefused(answer, 'unavailable');
      await gateway.says(/\bendpoint_unreachable\b.*\bfailure=tls\b/);
    }
  }
  assert.equal(here.as.calls.length, 1);
});

/** Makes two certificate authorities, and certificates of the first one for a name. */
function certificates(path) {
  const at = (name) => join(path, name);
  const openssl = (...parameters) =>
    execFileSync('openssl', parameters, { cwd: path, stdio: ['ignore', 'ignore', 'pipe'] });
  const key = (name) => [
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-keyout',
    at(`${name}.key`),
  ];
  for (const name of ['root', 'other']) {
    openssl(
      'req',
      '-x509',
      ...key(name),
      '-out',
      at(`${name}.pem`),
      '-days',
      '2',
      '-subj',
      `/CN=Tokenward test ${name}`,
      '-addext',
      'basicConstraints=critical,CA:TRUE',
      '-addext',
      'keyUsage=critical,keyCertSign',
    );
  }
  return {
    root: at('root.pem'),
    otherRoot: at('other.pem'),
    server(name) {
      writeFileSync(
        at('extensions'),
        `subjectAltName=DNS:${name}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n`,
      );
      openssl('req', ...key(name), '-out', at(`${name}.csr`), '-subj', `/CN=${name}`);
      openssl(
        'x509',
        '-req',
        '-in',
        at(`${name}.csr`),
        '-CA',
        at('root.pem'),
        '-CAkey',
        at('root.key'),
        '-CAcreateserial',
        '-days',
        '2',
        '-extfile',
        at('extensions'),
        '-out',
        at(`${name}.pem`),
      );
      return { key: readFileSync(at(`${name}.key`)), cert: readFileSync(at(`${name}.pem`)) };
    },
  };
}
