// Where in nginx's order a request is decided, and what is decided by it: redirects, subrequests, other modules beside.

import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, beforeEach, test } from 'node:test';

import { bearer, request } from '../gateway/support/client.js';
import { close, eventually, listen } from '../gateway/support/parts.js';
import { startUpstream, managed, values } from '../gateway/support/upstream.js';
import { start } from './support/nginx.js';

/** An authorization server that knows `good` (alice), `reader` (scope read) and `slow-...`; whatever else is not active. */
async function authorizationServer() {
  const calls = [];
  const server = http.createServer((incoming, answer) => {
    let body = '';
    incoming.on('data', (piece) => (body += piece));
    incoming.on('end', () => {
      const token = new URLSearchParams(body).get('token');
      calls.push({ token, headers: incoming.headers, url: incoming.url });
      const reply = { active: /^(good|reader|slow)/.test(token), username: 'alice', sub: 'a\u0001b', roles: ['x', 'y'] };
      if (token === 'reader') reply.scope = 'read';
      setTimeout(
        () => {
          answer.writeHead(200, { 'Content-Type': 'application/json' });
          answer.end(JSON.stringify(reply));
        },
        token.startsWith('slow') ? 100 : 0,
      );
    });
  });
  return { server, calls, port: await listen(server) };
}

let as, upstream;
before(async () => {
  as = await authorizationServer();
  upstream = await startUpstream();
});
beforeEach(() => {
  as.calls.length = 0;
  upstream.requests.length = 0;
});
after(() => Promise.all([close(as.server), upstream.stop()]));

const GOOD = [bearer('good')];

/** nginx with these locations in its one server, protected unless they say otherwise. */
function nginx(t, locations, { config = {}, before = '', ...options } = {}) {
  const document = {
    introspection_url: `http://127.0.0.1:${as.port}/introspect`,
    authorization_value: 'Basic eA==',
    consumers: [{ id: '7', username: 'alice', custom_id: 'seven' }, { id: '0', username: 'guest' }],
    ...config,
  };
  const files = { 'tokenward.json': JSON.stringify(document), ...options.files };
  return start(
    t,
    `tokenward_config $DIR/tokenward.json; tokenward_endpoint /introspect; ${before}
     server { listen 127.0.0.1:$PORT0; tokenward on;
       location = /introspect { internal; tokenward off; proxy_pass http://127.0.0.1:${as.port}/introspect; }
       ${locations.replaceAll('$UPSTREAM', upstream.url)}
     }`,
    { ...options, files },
  );
}

const get = (host, path = '/', headers = [], more = {}) => request(host.url, { path, headers, ...more });

test('a refusal is nginx\'s own status with the challenge and our body', async (t) => {
  const host = await nginx(t, 'location / { proxy_pass $UPSTREAM; }');
  const answer = await get(host);
  assert.equal(answer.status, 401);
  assert.equal(answer.headers['www-authenticate'], 'Bearer realm="service"');
  assert.equal(answer.headers['content-type'], 'application/json; charset=utf-8');
  assert.equal(answer.headers['cache-control'], 'no-store');
  assert.equal(answer.json().error, 'invalid_request');
});

test('error_page takes the place of our body, and the challenge stays', async (t) => {
  const host = await nginx(
    t,
    `error_page 401 /login; error_page 403 @denied;
     location / { proxy_pass $UPSTREAM; }
     location = /login { tokenward off; default_type text/plain; return 200 "please log in"; }
     location /write { tokenward_policy '{"require": {"scopes": ["write"]}}'; proxy_pass $UPSTREAM; }
     location @denied { tokenward off; default_type text/plain; return 403 "not for you"; }
     location /redirected { error_page 401 =302 https://login.example/; proxy_pass $UPSTREAM; }
     location /changed { error_page 401 =200 /login; proxy_pass $UPSTREAM; }`,
  );
  const answer = await get(host);
  assert.deepEqual([answer.status, answer.body], [401, 'please log in']);
  assert.equal(answer.headers['www-authenticate'], 'Bearer realm="service"');
  const denied = await get(host, '/write', [bearer('reader')]);
  assert.deepEqual([denied.status, denied.body], [403, 'not for you']);
  assert.match(denied.headers['www-authenticate'], /scope="write"/);
  const redirected = await get(host, '/redirected');
  assert.deepEqual([redirected.status, redirected.headers.location], [302, 'https://login.example/']);
  assert.deepEqual([(await get(host, '/changed')).status, (await get(host, '/changed')).body], [200, 'please log in']);
});

test('an error page that is protected itself is not shown: the refusal is', async (t) => {
  const host = await nginx(t, 'error_page 401 /login; location / { proxy_pass $UPSTREAM; } location = /login { return 200 x; }');
  // `return` runs before, and says so.
  assert.equal((await get(host)).body, 'x');
  const other = await nginx(t, 'error_page 401 /login; location / { proxy_pass $UPSTREAM; }');
  const answer = await get(other);
  assert.equal(answer.status, 401);
  assert.equal(answer.json().error, 'invalid_request');
  assert.equal(upstream.requests.length, 0);
});

test('a decision survives internal redirects under the same configuration', async (t) => {
  const host = await nginx(
    t,
    `location /files { try_files $uri @app; }
     location @app { proxy_pass $UPSTREAM; }
     location /fallback { proxy_pass http://127.0.0.1:1; error_page 502 = @app; }
     location /accel { proxy_pass $UPSTREAM; }`,
  );
  for (const path of ['/files/x', '/fallback/y']) {
    const answer = await get(host, path, [...GOOD, ['X-Consumer-ID', 'root']]);
    assert.equal(answer.status, 200, answer.body);
    assert.equal(managed(answer.json())['x-consumer-id'], '7');
    assert.deepEqual(values(answer.json(), 'authorization'), []);
  }
  assert.equal(as.calls.length, 1);
  const metrics = await get(host, '/files/x', []);
  assert.equal(metrics.status, 401);
});

test('another configuration decides anew, from what the client sent', async (t) => {
  const host = await nginx(
    t,
    `location /open { tokenward_policy '{"hide_credentials": false}'; try_files $uri @strict; }
     location @strict { tokenward_policy '{"require": {"scopes": ["write"]}}'; proxy_pass $UPSTREAM; }
     location /first { try_files $uri @second; }
     location @second { tokenward_policy '{"custom_claims_forward": ["roles"]}'; proxy_pass $UPSTREAM; }`,
  );
  const refused = await get(host, '/open/x', [bearer('reader')]);
  assert.equal(refused.status, 403);
  const answer = await get(host, '/first/x', GOOD);
  assert.equal(answer.status, 200, answer.body);
  const seen = managed(answer.json());
  assert.equal(seen['x-consumer-id'], '7');
  assert.equal(seen['x-credential-roles'], '["x","y"]');
  assert.equal(upstream.requests.length, 1);
});

test('a request that is allowed in one location is not allowed in another by a redirect', async (t) => {
  const host = await nginx(
    t,
    `location /public { tokenward off; try_files $uri /private; }
     location /private { proxy_pass $UPSTREAM; }`,
  );
  assert.equal((await get(host, '/public/x')).status, 401);
  assert.equal((await get(host, '/public/x', GOOD)).status, 200);
});

test('satisfy any: one of several suffices, and a token tells who it is all the same', async (t) => {
  const host = await nginx(
    t,
    `satisfy any;
     location /inside { allow 127.0.0.1; deny all; proxy_pass $UPSTREAM; }
     location /outside { deny all; proxy_pass $UPSTREAM; }`,
  );
  const inside = await get(host, '/inside', [['X-Consumer-ID', 'root'], ['X_Credential_Sub', 'root']]);
  assert.equal(inside.status, 200);
  assert.equal(inside.headers['www-authenticate'], undefined);
  assert.equal(inside.headers['cache-control'], undefined);
  assert.deepEqual(managed(inside.json()), {});
  assert.equal(managed((await get(host, '/inside', GOOD)).json())['x-consumer-id'], '7');
  assert.equal((await get(host, '/inside', [bearer('bad')])).status, 200);
  const outside = await get(host, '/outside');
  assert.equal(outside.status, 401);
  assert.equal(outside.headers['www-authenticate'], 'Bearer realm="service"');
  assert.equal(outside.json().error, 'invalid_request');
  assert.equal((await get(host, '/outside', GOOD)).status, 200);
});

test('satisfy all: nobody is asked about an address that is denied', async (t) => {
  const host = await nginx(t, 'location / { deny all; proxy_pass $UPSTREAM; } location /ok { allow all; proxy_pass $UPSTREAM; }');
  assert.equal((await get(host, '/', GOOD)).status, 403);
  assert.equal(as.calls.length, 0);
  assert.equal((await get(host, '/ok', GOOD)).status, 200);
  assert.equal((await get(host, '/ok')).status, 401);
});

test('auth_request beside it: both have to agree', async (t) => {
  const host = await nginx(
    t,
    `location /yes { auth_request /allow; proxy_pass $UPSTREAM; }
     location /no { auth_request /deny; proxy_pass $UPSTREAM; }
     location = /allow { internal; tokenward off; return 204; }
     location = /deny { internal; tokenward off; return 403; }`,
  );
  assert.equal((await get(host, '/yes', [bearer('slow-1')])).status, 200);
  assert.equal((await get(host, '/yes')).status, 401);
  assert.equal((await get(host, '/no', GOOD)).status, 403);
});

test('a subrequest to a protected location is refused unless its main request was allowed there', async (t) => {
  const host = await nginx(
    t,
    `location /guarded { tokenward off; auth_request /check; proxy_pass $UPSTREAM; }
     location = /check { internal; proxy_pass $UPSTREAM; }
     location /mirrored { tokenward off; mirror /check; proxy_pass $UPSTREAM; }
     location = /page { tokenward off; ssi on; default_type text/html; alias $DIR/page.html; }
     location = /allowed { ssi on; default_type text/html; alias $DIR/page.html; }
     location = /other { ssi on; default_type text/html; alias $DIR/page.html; tokenward_policy '{"realm": "other"}'; }
     location = /part { proxy_pass $UPSTREAM; }`,
    { files: { 'page.html': '<<!--# include virtual="/part" -->>' } },
  );
  // As target of auth_request it is never open by accident.
  assert.equal((await get(host, '/guarded', GOOD)).status, 403);
  assert.equal((await get(host, '/mirrored')).status, 200);
  assert.deepEqual(upstream.requests.map(({ url }) => url), ['/mirrored']);
  for (const path of ['/page', '/other']) {
    const page = await get(host, path, GOOD);
    assert.ok(!page.body.includes('"url"'), page.body);
  }
  assert.match((await get(host, '/allowed', GOOD)).body, /"url":"\/part"/);
});

test('limit_req counts by what tokenward_phase preaccess has decided', async (t) => {
  const host = await nginx(
    t,
    `tokenward_phase preaccess;
     location / { limit_req zone=by_consumer; proxy_pass $UPSTREAM; }
     location /late { tokenward_phase access; limit_req zone=late; proxy_pass $UPSTREAM; }`,
    {
      before:
        'limit_req_zone $tokenward_consumer_id zone=by_consumer:1m rate=1r/m; limit_req_zone $tokenward_consumer_id zone=late:1m rate=1r/m;',
    },
  );
  assert.equal((await get(host, '/', GOOD)).status, 200);
  assert.equal((await get(host, '/', GOOD)).status, 503);
  const refused = await get(host, '/');
  assert.equal(refused.status, 401);
  assert.equal(refused.json().error, 'invalid_request');
  // In the access phase the key is empty: requests are not counted.
  for (let i = 0; i < 3; i++) assert.equal((await get(host, '/late', GOOD)).status, 200);
});

test('names that only we set are gone before any directive can see them', async (t) => {
  const host = await nginx(
    t,
    `set $early "$http_x_consumer_id/$http_x_credential_sub/$http_x_anonymous_consumer/$http_x_mine";
     add_header X-Early $early always; add_header X-Late "$http_x_consumer_id" always;
     location / { proxy_pass $UPSTREAM; }
     location /off { tokenward off; proxy_pass $UPSTREAM; }`,
    { before: 'underscores_in_headers on; ignore_invalid_headers off;' },
  );
  const spoofed = [['X-Consumer-ID', 'root'], ['x_credential_sub', 'root'], ['X.Consumer.Username', 'root'], ['X-Anonymous_Consumer', 'true'], ['X-Mine', 'kept']];
  const answer = await get(host, '/', [...GOOD, ...spoofed]);
  assert.deepEqual([answer.headers['x-early'], answer.headers['x-late']], ['///kept', '7']);
  assert.equal(managed(answer.json())['x-consumer-id'], '7');
  assert.ok(!answer.body.includes('root'));
  const off = await get(host, '/off', spoofed);
  assert.deepEqual([off.headers['x-early'], managed(off.json())], ['///kept', {}]);
  // A refused request shows nothing of them either.
  const refused = await get(host, '/', spoofed);
  assert.deepEqual([refused.status, refused.headers['x-late']], [401, undefined]);
});

test('variables tell what was decided, encoded for headers', async (t) => {
  const show = ['consumer_id', 'consumer_custom_id', 'consumer_username', 'credential_sub', 'claim_sub', 'claim_roles', 'claim_absent', 'source', 'reason', 'anonymous', 'credential_hash'];
  const host = await nginx(
    t,
    `${show.map((name) => `add_header X-${name.replaceAll('_', '-')} "$tokenward_${name}" always;`).join(' ')}
     location / { proxy_pass $UPSTREAM; proxy_set_header X-Sub $tokenward_claim_sub; }
     location /guests { tokenward_policy '{"anonymous": "guest"}'; proxy_pass $UPSTREAM; }`,
  );
  const shown = (answer) => Object.fromEntries(show.map((name) => [name, answer.headers[`x-${name.replaceAll('_', '-')}`]]));
  const answer = await get(host, '/', GOOD);
  const sub = "UTF-8''a%01b";
  assert.deepEqual(shown(answer), {
    consumer_id: '7', consumer_custom_id: 'seven', consumer_username: 'alice', credential_sub: sub, claim_sub: sub, claim_roles: '["x","y"]',
    claim_absent: undefined, source: 'endpoint', reason: undefined, anonymous: undefined, credential_hash: '770e607624d689265ca6c44884d0807d9b054d23c473c106c72be9de08b7376c'.slice(0, 8),
  });
  assert.deepEqual(values(answer.json(), 'x-sub'), [sub]);
  assert.equal(shown(await get(host, '/', GOOD)).source, 'cache');
  const refused = shown(await get(host, '/', [bearer('bad')]));
  assert.deepEqual([refused.reason, refused.source, refused.consumer_id, refused.claim_sub], ['token_inactive', 'endpoint', undefined, undefined]);
  assert.equal(refused.credential_hash.length, 8);
  const guest = shown(await get(host, '/guests'));
  assert.deepEqual([guest.anonymous, guest.consumer_id, guest.credential_hash], ['true', '0', undefined]);
});

test('return, rewrite and if run before, as nginx documents', async (t) => {
  const host = await nginx(t, 'location /returned { return 200 early; } location /rewritten { rewrite ^ /there last; } location /there { proxy_pass $UPSTREAM; }');
  assert.equal((await get(host, '/returned')).body, 'early');
  assert.equal((await get(host, '/rewritten')).status, 401);
});

test('a credential in a query that a rewrite has moved is hidden too', async (t) => {
  const host = await nginx(
    t,
    `location /a { rewrite ^ /b?extra=1 last; } location /b { proxy_pass $UPSTREAM/to/; add_header X-Args "$args|$request_uri" always; }`,
    { config: { token_from: ['query'] } },
  );
  const answer = await get(host, '/a?access_token=good&x=2');
  assert.equal(answer.status, 200, answer.body);
  assert.ok(!JSON.stringify([answer.json(), answer.headers]).includes('good'), answer.body);
  assert.match(answer.json().url, /\?extra=1&x=2$/);
  assert.equal(answer.headers['x-args'], 'extra=1&x=2|/a?x=2');
});

test('the answer to a token in the query is private, whatever the upstream says', async (t) => {
  const host = await nginx(t, 'location / { proxy_pass $UPSTREAM; }', { config: { token_from: ['query', 'header'] } });
  assert.equal((await get(host, '/cacheable?access_token=good')).headers['cache-control'], 'private, max-age=60');
  assert.equal((await get(host, '/other?access_token=good')).headers['cache-control'], 'private');
  assert.equal((await get(host, '/cacheable', GOOD)).headers['cache-control'], 'public, max-age=60');
});

test("the client's headers never reach the authorization server, nor the call's the upstream", async (t) => {
  const host = await nginx(
    t,
    'location / { proxy_pass $UPSTREAM; }',
    { before: 'map $http_x_private $private { default "none"; ~. $http_x_private; } proxy_set_header X-Echo $private; proxy_set_header X-Cookie $http_cookie;' },
  );
  const answer = await get(host, '/', [...GOOD, ['X-Private', 'mine'], ['Cookie', 'a=b'], ['Referer', 'x']]);
  assert.deepEqual(values(answer.json(), 'x-echo'), ['mine']);
  const [{ headers }] = as.calls;
  assert.deepEqual(Object.keys(headers).sort(), ['accept', 'accept-encoding', 'authorization', 'connection', 'content-length', 'content-type', 'host', 'x-echo']);
  assert.equal(headers['x-echo'], 'none');
  assert.equal(headers.authorization, 'Basic eA==');
  for (const name of ['accept-encoding', 'content-type', 'content-length', 'authorization']) assert.deepEqual(values(answer.json(), name), []);
});

test('a client that goes away while a call is made leaves it to those who wait', async (t) => {
  const host = await nginx(t, 'location / { proxy_pass $UPSTREAM; }');
  const asking = http.get(host.url, { headers: { authorization: 'Bearer slow-gone' }, agent: false });
  asking.on('error', () => {});
  await eventually('the first one asks', () => as.calls.length === 1, { every: 2 });
  const waiting = get(host, '/', [bearer('slow-gone')]);
  await new Promise((resume) => setTimeout(resume, 30));
  asking.destroy();
  assert.equal((await waiting).status, 200);
  assert.equal(as.calls.length, 2);
});
