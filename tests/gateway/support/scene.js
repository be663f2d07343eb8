// What most tests share: an authorization server, an upstream, and a gateway between them for each test.

import assert from 'node:assert/strict';
import { after, before, beforeEach } from 'node:test';

import { clientAuth, startAuthorizationServer } from './authorization_server.js';
import { startGateway } from './gateway.js';
import { startUpstream } from './upstream.js';

export const CONSUMERS = [
  { id: '7d3f0a52-5d3c-4a36-9a3b-6f1d5b5f0c11', username: 'alice', custom_id: 'customer-1' },
  { id: '2', username: 'reporting', custom_id: 'reports' },
  { id: '3', username: 'guest' },
];
export const ALICE = {
  'x-consumer-id': CONSUMERS[0].id,
  'x-consumer-custom-id': 'customer-1',
  'x-consumer-username': 'alice',
};
export const GUEST = { 'x-consumer-id': '3', 'x-consumer-username': 'guest', 'x-anonymous-consumer': 'true' };

/** Starts the two servers before the tests of a file, and stops them after. */
export function scene() {
  const scene = {};
  before(async () => {
    scene.as = await startAuthorizationServer();
    scene.upstream = await startUpstream();
  });
  beforeEach(() => {
    scene.as.calls.length = 0;
    scene.upstream.requests.length = 0;
    scene.upstream.upgrades.length = 0;
  });
  after(() => Promise.all([scene.as?.stop(), scene.upstream?.stop()]));

  /** A gateway whose configuration is the usual one with these fields. */
  scene.gateway = (t, fields = {}, options = {}) =>
    startGateway(t, {
      config: {
        introspection_url: scene.as.endpoint,
        client_auth: clientAuth('gateway'),
        consumers: CONSUMERS,
        ...fields,
      },
      upstream: scene.upstream,
      ...options,
    });
  return scene;
}

/** The `X-Credential-*` headers that this introspection reply gives. */
export function credential(reply) {
  const headers = {
    'x-credential-scope': reply.scope,
    'x-credential-client-id': reply.client_id,
    'x-credential-token-type': reply.token_type,
    'x-credential-exp': reply.exp && String(reply.exp),
    'x-credential-iat': reply.iat && String(reply.iat),
    'x-credential-sub': reply.sub,
    'x-credential-iss': reply.iss,
    'x-credential-identifier': reply.username,
  };
  return Object.fromEntries(Object.entries(headers).filter(([, value]) => value !== undefined));
}

const INVALID = 'The access token is invalid or has expired';
const REFUSALS = {
  missing: [401, 'invalid_request', 'The access token is missing', ''],
  malformed: [400, 'invalid_request', undefined, ', error="invalid_request"'],
  invalid: [401, 'invalid_token', INVALID, `, error="invalid_token", error_description="${INVALID}"`],
  scope: [403, 'insufficient_scope', 'The access token does not grant the required scope', undefined],
  consumer: [403, 'access_denied', 'The consumer is not known', null],
  unavailable: [503, 'temporarily_unavailable', 'The authorization server is unavailable', null],
  unusable: [502, 'server_error', 'The authorization server gave no usable answer', null],
};

/** Checks every part of a refusal. `null` is no challenge; what is undefined is not looked at. */
export function assertRefused(answer, kind) {
  const [status, error, description, challenge] = REFUSALS[kind];
  const what = `${answer.status} ${answer.body}`;
  assert.equal(answer.status, status, what);
  assert.equal(answer.headers['content-type'], 'application/json; charset=utf-8');
  assert.equal(answer.headers['cache-control'], 'no-store');
  const body = answer.json();
  assert.deepEqual(Object.keys(body), ['error', 'error_description']);
  assert.equal(body.error, error);
  if (description !== undefined) assert.equal(body.error_description, description);
  if (challenge === null) assert.equal(answer.headers['www-authenticate'], undefined);
  else if (challenge !== undefined)
    assert.equal(answer.headers['www-authenticate'], `Bearer realm="service"${challenge}`);
  assert.equal(answer.headers['retry-after'] !== undefined, status === 503);
}
