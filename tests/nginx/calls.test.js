// The introspection call: whose failure is whose, how long it may take, how much of an answer is read, and that TLS is verified.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import net from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';

import { bearer, request } from '../gateway/support/client.js';
import { close, eventually, folder, listen } from '../gateway/support/parts.js';
import { check, start } from './support/nginx.js';

/** A server that answers each call as `respond(answer, token, request)` says. */
async function endpoint(t, respond, make = (handler) => http.createServer(handler)) {
  const calls = [];
  const server = make((incoming, answer) => {
    let body = '';
    incoming.on('data', (piece) => (body += piece));
    incoming.on('end', () => {
      const token = new URLSearchParams(body).get('token');
      calls.push({ token, url: incoming.url, socket: incoming.socket });
      respond(answer, token, incoming);
    });
  });
  const port = await listen(server);
  t.after(() => close(server));
  return { calls, port };
}
const json = (answer, body, headers = {}) => (answer.writeHead(200, { 'Content-Type': 'application/json', ...headers }), answer.end(body));
const ACTIVE = '{"active":true,"username":"alice"}';

const CONFIG = (port, fields) => ({ introspection_url: `http://127.0.0.1:${port}/introspect?key=s3cret-key`, authorization_value: 'Basic eA==', ...fields });

/** nginx whose one location answers `hello` to who is allowed, and proxies calls with these directives. */
function nginx(t, port, directives = '', { fields = {}, http: more = '', server = '', ...options } = {}) {
  return start(
    t,
    `tokenward_config $DIR/tokenward.json; tokenward_endpoint /introspect; ${more}
     server { listen 127.0.0.1:$PORT0; ${server}
       location / { tokenward on; root $DIR; try_files /hello =500; }
       location = /introspect { internal; proxy_pass http://127.0.0.1:${port}/introspect?key=s3cret-key; ${directives} }
     }`,
    { ...options, files: { 'tokenward.json': JSON.stringify(CONFIG(port, fields)), hello: 'hello' } },
  );
}
const get = (host, token, path = '/') => request(host.url, { path, headers: [bearer(token)] });
const reason = (answer) => [answer.status, answer.headers['retry-after'] !== undefined];

test('a reply of any size up to the limit is read, whatever the buffers are, chunked or not', async (t) => {
  const as = await endpoint(t, (answer, token) => {
    const [kind, size] = token.split('-');
    const body = ACTIVE.padEnd(Number(size));
    if (kind === 'plain') return json(answer, body, { 'Content-Length': body.length });
    if (kind === 'closed') return json(answer, body, { Connection: 'close' });
    answer.writeHead(200, { 'Content-Type': 'application/json' });
    for (let at = 0; at < body.length; at += 7000) answer.write(body.slice(at, at + 7000));
    answer.end();
  });
  const host = await nginx(t, as.port, 'subrequest_output_buffer_size 1k; proxy_buffer_size 1k; proxy_buffers 2 1k; proxy_busy_buffers_size 1k; proxy_http_version 1.1;');
  for (const kind of ['plain', 'chunked', 'closed']) {
    for (const size of [1_000, 5_000, 70_000, 1_048_576]) {
      const answer = await get(host, `${kind}-${size}`);
      assert.deepEqual([answer.status, answer.body], [200, 'hello'], `${kind} ${size}`);
    }
    assert.equal((await get(host, `${kind}-1048577`)).status, 502, kind);
    assert.equal((await get(host, `${kind}-9000000`)).status, 502, kind);
  }
});

test('timeout holds over the whole call, though the server sends byte after byte', async (t) => {
  const as = await endpoint(t, (answer) => {
    answer.writeHead(200, { 'Content-Type': 'application/json' });
    const timer = setInterval(() => answer.write(' '), 30);
    answer.on('close', () => clearInterval(timer));
  });
  const host = await nginx(t, as.port, '', { fields: { timeout: 300 } });
  const began = performance.now();
  assert.deepEqual(reason(await get(host, 'trickle')), [503, true]);
  const took = performance.now() - began;
  assert.ok(took >= 290 && took < 2_000, `${took} ms`);
  await host.says(/endpoint_timed_out/);
  await eventually('the connection is closed', () => as.calls[0].socket.destroyed);
});

test('a server that accepts and says nothing is given up in time, and the connection serves on', async (t) => {
  const server = net.createServer(() => {});
  const port = await listen(server);
  t.after(() => server.close());
  const host = await nginx(t, port, '', { fields: { timeout: 200 } });
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  for (let i = 0; i < 3; i++) {
    const status = await new Promise((resume, fail) => {
      http.get(host.url, { agent, headers: { authorization: `Bearer silent${i}` } }, (answer) => answer.resume().on('end', () => resume(answer.statusCode))).on('error', fail);
    });
    assert.equal(status, 503);
  }
});

test('a 502 or 504 of the server is its answer, one that nginx makes is a failure', async (t) => {
  const as = await endpoint(t, (answer, token) => {
    answer.writeHead(Number(token), { 'Retry-After': '17' });
    answer.end();
  });
  const host = await nginx(t, as.port, 'proxy_intercept_errors on; error_page 500 502 503 504 =200 /hello; proxy_next_upstream error timeout http_502 http_504;');
  for (const status of [500, 502, 503, 504]) {
    const answer = await get(host, String(status));
    assert.equal(answer.status, 503);
    assert.equal(answer.headers['retry-after'], '17');
  }
  await host.says(/endpoint_unavailable.*status=50/);
  const dead = await nginx(t, 1);
  assert.deepEqual(reason(await get(dead, 'x')), [503, true]);
  await dead.says(/endpoint_unreachable.*failure=connect/);
});

test('a connection that was kept too long is tried again', async (t) => {
  const as = await endpoint(t, (answer) => json(answer, ACTIVE));
  const host = await nginx(t, as.port, 'proxy_http_version 1.1; proxy_set_header Connection "";', {
    http: '',
    fields: {},
  });
  const kept = await start(
    t,
    `tokenward_config $DIR/tokenward.json; tokenward_endpoint /introspect;
     upstream as { server 127.0.0.1:${as.port} max_fails=0; keepalive 4; }
     server { listen 127.0.0.1:$PORT0; location / { tokenward on; try_files /hello =500; root $DIR; }
       location = /introspect { internal; proxy_pass http://as/introspect; proxy_http_version 1.1; proxy_set_header Connection ""; } }`,
    { files: { 'tokenward.json': JSON.stringify(CONFIG(as.port)), hello: 'hello' } },
  );
  assert.equal((await get(host, 'a')).status, 200);
  for (let i = 0; i < 3; i++) {
    assert.equal((await get(kept, `kept${i}`)).status, 200);
    // The server closes it; nginx may send its next request before it has heard of that.
    as.calls.at(-1).socket.destroy();
  }
  const broken = await endpoint(t, (answer, token) => {
    if (broken.calls.filter((call) => call.token === token).length === 1) answer.socket.destroy();
    else json(answer, ACTIVE);
  });
  const again = await nginx(t, broken.port);
  assert.equal((await get(again, 'retried')).status, 200);
  assert.equal(broken.calls.length, 2);
});

test('an answer cut off, or none at all, is no answer', async (t) => {
  const as = await endpoint(t, (answer, token) => {
    if (token === 'none') return answer.socket.end('this is not HTTP\r\n\r\n');
    answer.writeHead(200, { 'Content-Type': 'application/json', ...(token === 'short' ? { 'Content-Length': 100 } : {}) });
    answer.write(ACTIVE);
    setTimeout(() => answer.socket.destroy(), 20);
  });
  const host = await nginx(t, as.port, 'proxy_http_version 1.1;');
  for (const token of ['none', 'short', 'chunked']) assert.equal((await get(host, token)).status, 502, token);
});

test('nothing that the server says redirects the call or the request', async (t) => {
  const as = await endpoint(t, (answer, token) => json(answer, '{"active":false}', { [token === 'a' ? 'X-Accel-Redirect' : 'Location']: '/hello', 'Set-Cookie': 'a=b', 'X-Accel-Limit-Rate': '1' }));
  const host = await nginx(t, as.port);
  for (const token of ['a', 'b']) {
    const answer = await get(host, token);
    assert.equal(answer.status, 401);
    assert.equal(answer.headers['set-cookie'], undefined);
  }
});

test("answers about tokens are in nobody else's cache, and on no disk", async (t) => {
  const as = await endpoint(t, (answer) => json(answer, ACTIVE, { 'Cache-Control': 'max-age=600' }));
  const host = await nginx(t, as.port, 'proxy_cache tokens; proxy_cache_methods POST; proxy_cache_key all; proxy_cache_valid any 10m;', {
    http: 'proxy_cache_path $DIR/cache keys_zone=tokens:1m;',
  });
  for (const token of ['a', 'b', 'c']) assert.equal((await get(host, token)).status, 200);
  assert.deepEqual(as.calls.map(({ token }) => token), ['a', 'b', 'c']);
});

test('the endpoint is for us alone', async (t) => {
  const as = await endpoint(t, (answer) => json(answer, ACTIVE));
  const host = await nginx(t, as.port);
  assert.equal((await get(host, 'a', '/introspect')).status, 404);
  assert.equal(as.calls.length, 0);
});

function certificate(path) {
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', join(path, 'key'), '-out', join(path, 'cert'),
    '-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'], { stdio: ['ignore', 'ignore', 'pipe'] });
  return { key: readFileSync(join(path, 'key')), cert: readFileSync(join(path, 'cert')) };
}

test('with an https endpoint nothing is asked over a connection that is not verified', async (t) => {
  const path = await folder((stop) => t.after(stop));
  const pair = certificate(path);
  const as = await endpoint(t, (answer) => json(answer, ACTIVE), (handler) => https.createServer(pair, handler));
  const plain = await endpoint(t, (answer) => json(answer, ACTIVE));
  const document = { introspection_url: `https://localhost:${as.port}/introspect`, authorization_value: 'x' };
  const files = { 'tokenward.json': JSON.stringify(document), hello: 'hello' };
  const block = (location, insecure = '', before = '') =>
    `tokenward_config $DIR/tokenward.json; tokenward_endpoint /introspect ${insecure}; ${before}
     server { listen 127.0.0.1:$PORT0; location / { tokenward on; try_files /hello =500; root $DIR; } ${location} }`;
  const roots = `proxy_ssl_trusted_certificate ${path}/cert;`;
  const verified = `proxy_ssl_verify on; proxy_ssl_server_name on; proxy_ssl_name localhost; ${roots}`;
  const https_ = `proxy_pass https://127.0.0.1:${as.port}/introspect;`;

  // What nginx -t can tell.
  for (const [location, expected] of [
    [`location = /introspect { internal; ${https_} }`, /proxy_ssl_verify on/],
    [`location = /introspect { internal; ${https_} proxy_ssl_verify on; ${roots} }`, /proxy_ssl_server_name on/],
    [`location = /introspect { internal; proxy_pass http://127.0.0.1:${plain.port}/; }`, /without TLS/],
    [`location = /introspect { ${https_} ${verified} }`, /not "internal"/],
    ['location = /introspect { internal; return 200 x; }', /does not proxy/],
    ['location = /elsewhere { internal; }', /not "internal"/],
  ]) {
    const { status, stderr } = await check(t, block(location).replaceAll('$PORT0', '1'), files);
    assert.notEqual(status, 0, location);
    assert.match(stderr, expected);
    assert.match(stderr, /tokenward_endpoint \/introspect/);
  }

  // What only the first call can tell: 502, and an alert.
  for (const [location, before] of [
    [`location ~ ^/intro { internal; proxy_pass https://127.0.0.1:${as.port}; }`, ''],
    [`location = /introspect { internal; proxy_pass $scheme://127.0.0.1:${plain.port}/introspect; ${verified} }`, ''],
    [`location = /introspect { internal; proxy_pass https://127.0.0.1:${as.port}$uri; ${roots} }`, ''],
    [`location = /introspect { internal; rewrite ^ /open last; ${https_} ${verified} } location = /open { proxy_pass http://127.0.0.1:${plain.port}; }`, ''],
    ['location ~ ^/introspect$ { internal; return 200 "{}"; }', ''],
    ['location ~ ^/introspect$ { internal; root /; }', ''],
  ]) {
    const host = await start(t, block(location, '', before), { files, alerts: true });
    assert.equal((await get(host, 'a')).status, 502, location);
    if (!location.includes('return')) assert.match(host.stderr, /\[alert\].*tokenward_endpoint \/introspect/, location);
  }
  // One or the other, as its version can tell: what TLS needs stands further out, and another location is proxied with it.
  const mixed = block(
    `location = /introspect { internal; proxy_pass http://127.0.0.1:${plain.port}/introspect; } location /other { ${https_} }`, '', verified);
  const { status, stderr } = await check(t, mixed.replaceAll('$PORT0', '1'), files);
  if (status === 0) assert.equal((await get(await start(t, mixed, { files, alerts: true }), 'a')).status, 502);
  else assert.match(stderr, /without TLS/);
  assert.deepEqual([as.calls.length, plain.calls.length], [0, 0]);

  const good = await start(t, block(`location = /introspect { internal; ${https_} ${verified} }`), { files });
  assert.equal((await get(good, 'a')).status, 200);
  const wrong = await start(t, block(`location = /introspect { internal; ${https_} ${verified.replace('_name localhost', '_name other.example')} }`), { files });
  assert.equal((await get(wrong, 'a')).status, 503);
  await wrong.says(/endpoint_unreachable.*failure=tls/);
  const insecure = await start(t, block(`location = /introspect { internal; ${https_} }`, 'insecure'), { files });
  assert.equal((await get(insecure, 'a')).status, 200);
});

test('nginx -t names the file and every field that is wrong in it', async (t) => {
  const block = `tokenward_config $DIR/t.json; tokenward_consumers $DIR/c.json; tokenward_endpoint /i;
    server { listen 127.0.0.1:1; location / { tokenward on; tokenward_policy POLICY; } location = /i { internal; proxy_pass http://127.0.0.1:1; } }`;
  const good = JSON.stringify(CONFIG(1));
  for (const [files, policy, expected] of [
    [{ 't.json': '{"introspection_url": "https://a.example", "ttl": -1, "cache": {"negative_tll": 1}}', 'c.json': '[]' }, "''", [/t\.json: `ttl`/, /`cache\.negative_tll`.*`negative_ttl`/, /authorization_value/]],
    [{ 't.json': good, 'c.json': '[{"id": "1", "username": "a"}, {"id": "1", "username": "b"}]' }, "''", [/c\.json/, /consumers/]],
    [{ 't.json': good, 'c.json': '[]' }, `'{"scopes": ["a"]}'`, [/tokenward_policy: `scopes`/]],
    [{ 't.json': good, 'c.json': '[]', 'p.json': '{"realm": 3}' }, '$DIR/p.json', [/p\.json: `realm`/]],
    [{ 't.json': good }, "''", [/c\.json.*No such file/]],
  ]) {
    const { status, stderr } = await check(t, block.replace('POLICY', policy), files);
    assert.notEqual(status, 0);
    for (const one of expected) assert.match(stderr, one);
  }
  for (const [directives, expected] of [
    ['location / { tokenward on; }', /tokenward_config.*is missing/],
    ['tokenward_config $DIR/t.json; location / { tokenward on; }', /tokenward_endpoint.*is missing/],
    ['location / { tokenward_metrics; }', /tokenward_config.*is missing/],
    ['tokenward_endpoint introspect;', /beginning with/],
    ['tokenward_endpoint /i secure;', /"insecure" is the only one/],
    ['tokenward_phase content;', /invalid value/],
    ['location / { tokenward_metrics; tokenward_metrics; }', /duplicate/],
  ]) {
    const { status, stderr } = await check(t, `server { listen 127.0.0.1:1; ${directives} }`, { 't.json': good });
    assert.notEqual(status, 0, directives);
    assert.match(stderr, expected);
  }
  const { status, stderr } = await check(t, 'tokenward_zone 1k;');
  assert.notEqual(status, 0);
  assert.match(stderr, /too small/);
});

test('directives are inherited, and a location has its own in their place', async (t) => {
  const as = await endpoint(t, (answer, token) => json(answer, `{"active":true,"username":"${token}","scope":"read"}`));
  const host = await start(
    t,
    `tokenward on; tokenward_config $DIR/one.json; tokenward_endpoint /introspect; tokenward_policy $DIR/policy.json;
     server { listen 127.0.0.1:$PORT0; root $DIR;
       location = /introspect { internal; tokenward off; proxy_pass http://127.0.0.1:${as.port}; }
       location = /other { internal; tokenward off; proxy_pass http://127.0.0.1:${as.port}/other; }
       location / { try_files /hello =500; add_header X-Id "$tokenward_consumer_id"; }
       location /own { tokenward_policy ""; try_files /hello =500; }
       location /open { tokenward off; try_files /hello =500; }
       location /two { tokenward_config $DIR/one.json; tokenward_consumers $DIR/consumers.json; tokenward_policy ""; tokenward_endpoint /other; try_files /hello =500; add_header X-Id "$tokenward_consumer_id"; }
     }`,
    { files: { 'one.json': JSON.stringify(CONFIG(as.port)), 'policy.json': '\n{"require": {"scopes": ["write"]}}', 'consumers.json': '[{"id": "2", "username": "bob"}]', hello: 'hello' } },
  );
  const status = async (path, token = 'bob') => (await get(host, token, path)).status;
  assert.deepEqual([await status('/'), await status('/own'), await status('/open')], [403, 200, 200]);
  const two = await get(host, 'bob', '/two');
  assert.deepEqual([two.status, two.headers['x-id']], [200, '2']);
  // The policies share an introspector, the consumers of a file of their own make another.
  assert.deepEqual(as.calls.map(({ url }) => url), ['/introspect', '/other']);
});

test('HTTP/2: streams ask and wait each on their own, and may be reset', async (t) => {
  const as = await endpoint(t, (answer, token) => setTimeout(() => json(answer, token.startsWith('bad') ? '{"active":false}' : ACTIVE), 50));
  const host = await start(
    t,
    `tokenward_config $DIR/tokenward.json; tokenward_endpoint /introspect;
     server { listen 127.0.0.1:$PORT0 http2; root $DIR; location / { tokenward on; try_files /hello =500; }
       location = /introspect { internal; proxy_pass http://127.0.0.1:${as.port}/introspect; } }`,
    { files: { 'tokenward.json': JSON.stringify(CONFIG(as.port)), hello: 'hello' } },
  );
  const session = http2.connect(host.url);
  t.after(() => session.destroy());
  const ask = (token) =>
    new Promise((resume, fail) => {
      let body = '';
      const stream = session.request({ ':path': '/x', ...(token && { authorization: `Bearer ${token}` }) });
      stream.on('response', (headers) => (stream.status = headers[':status']));
      stream.on('data', (piece) => (body += piece));
      stream.on('end', () => resume([stream.status, body.slice(0, 5)]));
      stream.on('error', fail);
    });
  const reset = session.request({ ':path': '/x', authorization: 'Bearer same' });
  reset.on('error', () => {});
  await eventually('it asks', () => as.calls.length === 1, { every: 2 });
  const answers = ['same', 'same', 'one', 'bad', undefined].map(ask);
  reset.close(http2.constants.NGHTTP2_CANCEL);
  assert.deepEqual(await Promise.all(answers), [[200, 'hello'], [200, 'hello'], [200, 'hello'], [401, '{"err'], [401, '{"err']]);
  assert.equal(as.calls.filter(({ token }) => token === 'same').length, 2);
});
