// What a client, or a configuration that nginx permits, could try to get past it: spoofed names, tokens that stay, limits.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import http from 'node:http';
import http2 from 'node:http2';
import { dirname, join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';

import { bearer, exchange, request } from '../gateway/support/client.js';
import { close, listen } from '../gateway/support/parts.js';
import { managed, startUpstream } from '../gateway/support/upstream.js';
import { MODULE, check, start } from './support/nginx.js';

let as, upstream;
before(async () => {
  const calls = [];
  const server = http.createServer((incoming, answer) => {
    let body = '';
    incoming.on('data', (piece) => (body += piece));
    incoming.on('end', () => {
      const token = new URLSearchParams(body).get('token');
      calls.push({ token, headers: incoming.headers });
      answer.writeHead(200, { 'Content-Type': 'application/json' });
      answer.end(JSON.stringify({ active: token.startsWith('good'), username: 'alice' }));
    });
  });
  as = { server, calls, port: await listen(server) };
  upstream = await startUpstream();
});
beforeEach(() => {
  as.calls.length = 0;
  upstream.requests.length = 0;
});
after(() => Promise.all([close(as.server), upstream.stop()]));

const document = (fields) =>
  JSON.stringify({
    introspection_url: `http://127.0.0.1:${as.port}/introspect`,
    authorization_value: 'Basic eA==',
    consumers: [{ id: '7', username: 'alice' }],
    ...fields,
  });

/** nginx with these locations in its one server, protected unless they say otherwise. */
function nginx(t, locations, { fields, before = '', endpoint = '', ...options } = {}) {
  return start(
    t,
    `tokenward_config $DIR/tokenward.json; tokenward_endpoint /introspect; ${before}
     server { listen 127.0.0.1:$PORT0; tokenward on;
       location = /introspect { internal; tokenward off; proxy_pass http://127.0.0.1:${as.port}/introspect; ${endpoint} }
       ${locations.replaceAll('$UPSTREAM', upstream.url)}
     }`,
    { ...options, files: { 'tokenward.json': document(fields), ...options.files } },
  );
}
const get = (host, path, headers = []) => request(host.url, { path, headers });
const raw = (host, line, headers = '') => exchange(host.url, `${line}\r\n${headers}Connection: close\r\n\r\n`);

test('names that only we set are gone from a request that nginx itself finds bad, whatever page it is shown', async (t) => {
  const host = await nginx(
    t,
    `error_page 400 $PAGE; set $seen $http_x_consumer_id; add_header X-Seen "<$seen$http_x_consumer_id>" always;
     location / { proxy_pass $UPSTREAM; }
     location = /page { tokenward off; proxy_pass $UPSTREAM; }
     location @page { tokenward off; set $here $http_x_consumer_id; add_header X-Seen "<$here>" always; proxy_pass $UPSTREAM; }`.replace('$PAGE', '/page'),
  );
  const named = await nginx(
    t,
    `error_page 400 = @page; location / { proxy_pass $UPSTREAM; }
     location @page { tokenward off; set $here $http_x_consumer_id; add_header X-Seen "<$here>" always; proxy_pass $UPSTREAM; }`,
  );
  for (const one of [host, named]) {
    // No Host: nginx has read every header line, and runs no phase but those of the page.
    const answer = await raw(one, 'GET / HTTP/1.1', 'X-Consumer-ID: root\r\nX_Credential_Sub: root\r\n');
    assert.match(answer, /X-Seen: <>\r\n/, answer);
    assert.equal(upstream.requests.length, 1, answer);
    assert.deepEqual(managed(upstream.requests.pop()), {});
  }
});

test('what is set again and again is set whatever lines a client sends, in whatever order, and the credential alone goes', async (t) => {
  const host = await nginx(t, 'location / { add_header X-Seen "<$http_authorization$http_x_consumer_id>"; proxy_pass $UPSTREAM; }');
  const token = bearer('good-again');
  const more = (count) => Array.from({ length: count }, (_, at) => [`X-Line-${at}`, `${at}`]);
  const kept = (headers) => headers.filter(([name]) => /^(a$|b$|authorizatio[^n]|x-line)/i.test(name)).map(([name, value]) => [name.toLowerCase(), value]);
  for (const headers of [
    [token],
    [token, ['A', '1']],
    [['A', '1'], token],
    [['A', '1'], token, ['B', '2']],
    [['authorization', token[1]], ['A', '1']],
    [['A', '1'], ['AUTHORIZATION', token[1]]],
    [['Authorizatiom', 'x'], token, ['Authorizations', 'y']],
    [token, ['X-Consumer-ID', 'root'], ['A', '1']],
    [['X-Credential-Sub', 'root'], ['A', '1'], token],
    ...[15, 16, 17, 18, 19, 20, 21, 40].flatMap((count) => [[token, ...more(count)], [...more(count), token], [...more(count), token, ...more(3)]]),
  ]) {
    for (let round = 0; round < 4; round++) {
      const answer = await get(host, '/', headers);
      assert.equal(answer.status, 200, `${headers}`);
      assert.equal(answer.headers['x-seen'], '<7>', `${headers}`);
      const lines = upstream.requests.pop().headers.map(([name, value]) => [name.toLowerCase(), value]);
      assert.deepEqual(kept(lines), kept(headers), `${headers}`);
      assert.deepEqual(lines.filter(([name]) => /^x-consumer/.test(name)), [['x-consumer-id', '7'], ['x-consumer-username', 'alice']], `${headers}`);
      assert.ok(!lines.some(([name]) => name === 'authorization' || name === 'x-credential-sub'), `${headers}`);
    }
  }
  const twice = await raw(host, 'GET / HTTP/1.1', `Host: a\r\n${token.join(': ')}\r\n${token.join(': ')}\r\n`);
  assert.match(twice, /^HTTP\/1\.1 400 /);
  assert.equal(upstream.requests.length, 0);
  assert.equal(as.calls.length, 1);
});

/** Lines that reached the upstream in lower case, of those that a test looks at, in their order. */
const reached = ({ headers }) =>
  headers.map(([name, value]) => [name.toLowerCase(), value]).filter(([name]) => /^(a|b|authorization|x-consumer-.*|x-pushed-.*)$/.test(name));
const ALICE = [['x-consumer-id', '7'], ['x-consumer-username', 'alice']];

test('what was set again stands after a redirect under the same policy and beside a subrequest, and another policy decides anew', async (t) => {
  const host = await nginx(
    t,
    `location /same { try_files $uri @same; }
     location @same { proxy_pass $UPSTREAM; }
     location /open { try_files $uri @open; }
     location @open { tokenward_policy '{"hide_credentials": false}'; proxy_pass $UPSTREAM; }
     location /strict { try_files $uri @strict; }
     location @strict { tokenward_policy '{"require": {"scopes": ["write"]}}'; proxy_pass $UPSTREAM; }
     location /checked { tokenward_phase preaccess; auth_request /check; proxy_pass $UPSTREAM; }
     location = /check { internal; proxy_pass $UPSTREAM; }`,
  );
  const token = bearer('good-redirected');
  for (let round = 0; round < 4; round++) {
    for (const [path, requests, sent] of [
      ['/same/x', 1, []],
      ['/open/x', 1, [['authorization', token[1]]]],
      ['/checked', 2, []],
    ]) {
      assert.equal((await get(host, path, [['A', '1'], token, ['B', '2']])).status, 200, path);
      assert.equal(upstream.requests.length, requests, path);
      for (const one of upstream.requests.splice(0)) {
        assert.deepEqual(reached(one), [['a', '1'], ...sent, ['b', '2'], ...ALICE], `${path} ${one.url}`);
      }
    }
    assert.equal((await get(host, '/strict/x', [['A', '1'], token])).status, 403);
    assert.equal(upstream.requests.length, 0);
  }
  assert.equal(as.calls.length, 1);
});

test('lines that another module adds stand behind those that are set, however many they are, and are of their request alone', async (t) => {
  const host = await nginx(t, 'location / { proxy_pass $UPSTREAM; }', { main: `load_module ${another('pushes_lines')};` });
  const token = bearer('good-pushed');
  for (let round = 0; round < 3; round++) {
    for (const [headers, kept] of [
      [[token], []],
      [[token, ['A', '1']], [['a', '1']]],
      [[['A', '1'], token, ['B', '2']], [['a', '1'], ['b', '2']]],
      [[['A', '1'], ['X-Consumer-ID', 'root'], token], [['a', '1']]],
    ]) {
      for (const count of [0, 1, 11, 12, 13, 14, 15, 16, 40]) {
        assert.equal((await get(host, `/?push=${count}`, headers)).status, 200);
        const pushed = Array.from({ length: count }, (_, at) => [`x-pushed-${at}`, `${count}`]);
        assert.deepEqual(reached(upstream.requests.pop()), [...kept, ...ALICE, ...pushed], `${headers} ${count}`);
      }
    }
  }
  assert.equal(as.calls.length, 1);
});

test('a request line that cannot be read gets no further than a page that needs no token', async (t) => {
  const host = await nginx(t, 'error_page 400 /page; location / { proxy_pass $UPSTREAM; }');
  assert.match(await raw(host, 'GET / HTTP/7.7', 'X-Consumer-ID: root\r\n'), /^(HTTP\/1\.1 [45]|\{)/);
  assert.match(await raw(host, 'GET / HTTP/1.1', 'X-Consumer-ID: root\r\n'), /^HTTP\/1\.1 4/);
  assert.equal(upstream.requests.length, 0);
});

test('a token leaves the query wherever a rewrite has copied it, and before a fragment', async (t) => {
  const host = await nginx(
    t,
    `location /plain { proxy_pass $UPSTREAM; add_header X-Args "$args" always; }
     location /to { proxy_pass $UPSTREAM/other; add_header X-Args "$args" always; }
     location /twice { rewrite ^ /to?$args last; }
     location /behind { rewrite ^ /to?a=1 last; }`,
    { fields: { token_from: ['query'] } },
  );
  for (const [target, args] of [
    ['/plain?access_token=good&x=2#part', 'x=2'],
    ['/to?access_token=good&x=2#part', 'x=2'],
    ['/to?x=2&access_token=good&y=3#part', 'x=2&y=3'],
    ['/twice?access_token=good&x=2', 'x=2&x=2'],
    ['/behind?access_token=good&x=2#part', 'a=1&x=2'],
    ['/behind?access_token=good', 'a=1'],
    ['/twice?access_token=good', ''],
  ]) {
    const answer = await raw(host, `GET ${target} HTTP/1.1`, 'Host: a\r\n');
    assert.match(answer, /^HTTP\/1\.1 200 /, `${target}: ${answer}`);
    assert.ok(!answer.includes('good'), `${target}: ${answer}`);
    assert.equal(answer.match(/X-Args: (.*)\r\n/)?.[1] ?? '', args, target);
  }
});

test('limits are of requests, not of calls: what tokenward_phase preaccess tells them is counted though it was asked for', async (t) => {
  const host = await nginx(
    t,
    'tokenward_phase preaccess; limit_req zone=by_address burst=100 nodelay; limit_req zone=by_consumer; location / { proxy_pass $UPSTREAM; }',
    { before: 'limit_req_zone $binary_remote_addr zone=by_address:1m rate=100r/s; limit_req_zone $tokenward_consumer_id zone=by_consumer:1m rate=1r/m;' },
  );
  assert.equal((await get(host, '/', [bearer('good-1')])).status, 200);
  assert.equal((await get(host, '/', [bearer('good-2')])).status, 503);
  const calls = await nginx(t, 'location / { proxy_pass $UPSTREAM; }', {
    before: 'limit_req_zone $binary_remote_addr zone=calls:1m rate=1r/m; limit_conn_zone $binary_remote_addr zone=open:1m;',
    endpoint: 'limit_req zone=calls; limit_conn open 1;',
  });
  for (const token of ['good-3', 'good-4']) assert.equal((await get(calls, '/', [bearer(token)])).status, 200);
});

test("the client's request line is nothing of the authorization server's", async (t) => {
  const host = await nginx(t, 'location / { proxy_pass $UPSTREAM; }', { before: 'proxy_set_header X-Line "<$request|$request_uri|$args>";' });
  assert.equal((await get(host, '/private?secret=1', [bearer('good')])).status, 200);
  assert.equal(as.calls[0].headers['x-line'], '<|/introspect|>');
});

test('a body that nginx refuses is refused so, and a page that is protected is not shown instead', async (t) => {
  const host = await nginx(
    t,
    'error_page 413 /page; client_max_body_size 10; location / { proxy_pass $UPSTREAM; } location /other { error_page 413 = /page; proxy_pass $UPSTREAM; } location = /page { proxy_pass $UPSTREAM; }',
    { fields: { token_from: ['body', 'header'] } },
  );
  const form = ['Content-Type', 'application/x-www-form-urlencoded'];
  for (const body of [`access_token=good&a=${'x'.repeat(100)}`, (one) => one.end(`access_token=good&a=${'x'.repeat(100)}`)]) {
    for (const path of ['/', '/other']) {
      const answer = await request(host.url, { method: 'POST', path, headers: [form], body });
      assert.equal(answer.status, 401, answer.body);
    }
  }
  assert.equal(upstream.requests.length, 0);
  // With a token in the header the page is shown to who may see it.
  assert.equal((await request(host.url, { method: 'POST', headers: [form, bearer('good')], body: 'x'.repeat(100) })).status, 413);
});

test('a token in the query is in no line of the error log, however its name is spelled', async (t) => {
  const host = await start(
    t,
    `tokenward_config $DIR/tokenward.json; tokenward_endpoint /introspect;
     server { listen 127.0.0.1:$PORT0; tokenward on; location = /introspect { internal; proxy_pass http://127.0.0.1:1; } location / { proxy_pass ${upstream.url}; } }`,
    { files: { 'tokenward.json': document({ token_from: ['query'], retry: { attempts: 1 } }) } },
  );
  for (const name of ['access_token', 'access%5Ftoken', '%61ccess_token', 'a=1&acces%73_token']) {
    assert.equal((await get(host, `/?${name}=qqqqqqqq`)).status, 503, name);
  }
  await host.says(/connect\(\) failed/);
  assert.ok(!host.stderr.includes('qqqqqqqq'), host.stderr);
});

test('blocks within a location are as protected as it is', async (t) => {
  const host = await nginx(
    t,
    `location / { if ($arg_a) { proxy_pass $UPSTREAM; } limit_except GET { allow all; } proxy_pass $UPSTREAM; location /nested { proxy_pass $UPSTREAM; } location ~ \\.x$ { proxy_pass $UPSTREAM; } }
     error_page 404 = @named; location @named { proxy_pass $UPSTREAM; } location = /empty { root $DIR; }`,
  );
  for (const path of ['/?a=1', '/nested/x', '/a.x', '/empty']) {
    assert.equal((await get(host, path)).status, 401, path);
    assert.equal((await get(host, path, [bearer('good')])).status, 200, path);
  }
  assert.equal((await request(host.url, { method: 'POST', body: 'a' })).status, 401);
});

test('nginx -t looks at the endpoints of named locations too', async (t) => {
  const { status, stderr } = await check(
    t,
    `tokenward_config $DIR/tokenward.json; tokenward_endpoint /introspect;
     server { listen 127.0.0.1:1; location / { try_files $uri @named; } location @named { tokenward on; proxy_pass http://127.0.0.1:1; }
       location = /introspect { internal; proxy_pass http://127.0.0.1:1; } }`,
    { 'tokenward.json': document({ introspection_url: 'https://as.example/introspect' }) },
  );
  assert.notEqual(status, 0);
  assert.match(stderr, /without TLS/);
});

test('what runs after a client has gone is refused as long as nothing was decided', async (t) => {
  const host = await nginx(t, 'location / { post_action /after; proxy_pass $UPSTREAM; } location = /after { proxy_pass $UPSTREAM/after; }', {
    fields: { token_from: ['header', 'body'] },
  });
  const held = as.server.listeners('request')[0];
  as.server.removeAllListeners('request');
  as.server.on('request', (incoming, answer) => setTimeout(() => held(incoming, answer), 150));
  t.after(() => (as.server.removeAllListeners('request'), as.server.on('request', held)));
  const half = http.request(host.url, { method: 'POST', headers: { 'content-type': 'application/x-www-form-urlencoded', 'content-length': 100 }, agent: false });
  half.on('error', () => {}).write('access_token=good');
  setTimeout(() => half.destroy(), 30);
  for (let i = 0; i < 5; i++) {
    const going = http.get(host.url, { headers: { authorization: `Bearer good-${i}` }, agent: false });
    going.on('error', () => {});
    await new Promise((resume) => setTimeout(resume, 40));
    going.destroy();
  }
  await new Promise((resume) => setTimeout(resume, 400));
  assert.deepEqual(upstream.requests.map(({ url }) => url), []);
  assert.equal((await get(host, '/', [bearer('good')])).status, 200);
});

test('a preflight request that nginx makes a GET of is let through no more', async (t) => {
  const host = await nginx(
    t,
    `location /api { proxy_pass http://127.0.0.1:1; error_page 502 = /data; }
     location /named { proxy_pass http://127.0.0.1:1; error_page 502 = @data; }
     location @data { proxy_pass $UPSTREAM; }
     location /data { proxy_pass $UPSTREAM; }
     location /checked { tokenward_phase preaccess; auth_request /check; proxy_pass $UPSTREAM; }
     location = /check { proxy_pass $UPSTREAM; }`,
    { fields: { run_on_preflight: false } },
  );
  const preflight = (path, headers = []) =>
    request(host.url, { method: 'OPTIONS', path, headers: [['Origin', 'https://a.example'], ['Access-Control-Request-Method', 'GET'], ...headers] });
  assert.equal((await preflight('/data')).json().method, 'OPTIONS');
  // It stays one.
  assert.equal((await preflight('/named')).json().method, 'OPTIONS');
  upstream.requests.length = 0;
  assert.equal((await preflight('/api')).status, 401);
  assert.equal((await preflight('/checked')).status, 403);
  assert.deepEqual([upstream.requests.length, as.calls.length], [0, 0]);
  const seen = (await preflight('/api', [bearer('good')])).json();
  assert.equal(seen.method, 'GET');
  assert.equal(managed(seen)['x-consumer-id'], '7');
});

test('a preflight request that nginx makes a GET of is none for another policy either, whatever the first one said', async (t) => {
  const host = await nginx(
    t,
    `location /refused { tokenward_policy '{"run_on_preflight": true}'; proxy_pass $UPSTREAM; error_page 401 = /scoped; }
     location /allowed { tokenward_policy '{"run_on_preflight": true}'; proxy_pass http://127.0.0.1:1; error_page 502 = /scoped; }
     location /named { tokenward_policy '{"run_on_preflight": true}'; proxy_pass $UPSTREAM; error_page 401 = @scoped; }
     location /scoped { tokenward_policy '{"require": {"scopes": ["admin"]}}'; proxy_pass $UPSTREAM; }
     location @scoped { tokenward_policy '{"require": {"scopes": ["admin"]}}'; proxy_pass $UPSTREAM; }`,
    { fields: { run_on_preflight: false }, before: 'recursive_error_pages on;' },
  );
  const preflight = (path, headers = []) =>
    request(host.url, { method: 'OPTIONS', path, headers: [['Origin', 'https://a.example'], ['Access-Control-Request-Method', 'GET'], ...headers] });
  for (const [path, headers, status] of [
    ['/refused', [], 401],
    ['/refused', [bearer('bad')], 401],
    ['/allowed', [bearer('good')], 403],
  ]) {
    assert.equal((await preflight(path, headers)).status, status, path);
    assert.deepEqual(upstream.requests.length, 0, path);
  }
  // It stays one.
  assert.equal((await preflight('/named')).json().method, 'OPTIONS');
});

/** Another module, of support/NAME.c, for the nginx that MODULE was built for. */
function another(name) {
  const source = process.env.TOKENWARD_NGINX_SRC ?? '/usr/share/nginx/src';
  const folders = ['core', 'event', 'event/modules', 'event/quic', 'os/unix', 'http', 'http/modules', 'http/v2', 'http/v3'].map((name) => join(source, 'src', name));
  const made = join(dirname(MODULE), `${name}.so`);
  execFileSync('cc', ['-shared', '-fPIC', '-O1', ...[join(dirname(MODULE), 'build'), ...folders].map((name) => `-I${name}`), '-o', made, join(import.meta.dirname, `support/${name}.c`)]);
  return made;
}

test('another module that ends the phase PREACCESS opens nothing', async (t) => {
  const host = await nginx(
    t,
    `location / { tokenward_phase preaccess; proxy_pass $UPSTREAM; }
     location /guarded { tokenward off; auth_request /check; proxy_pass $UPSTREAM; }
     location = /check { internal; proxy_pass $UPSTREAM; }
     location = /asking { tokenward_endpoint /open; proxy_pass $UPSTREAM; }
     location ~ ^/open { proxy_pass http://127.0.0.1:${as.port}; }`,
    { main: `load_module ${another('ends_preaccess')};`, alerts: true },
  );
  assert.equal((await get(host, '/')).status, 401);
  assert.equal((await get(host, '/guarded', [bearer('good')])).status, 403);
  assert.equal((await get(host, '/asking', [bearer('good-0')])).status, 502);
  assert.deepEqual([upstream.requests.length, as.calls.length], [0, 0]);
  for (const token of ['good-1', 'good-1', 'good-2']) assert.equal((await get(host, '/', [bearer(token)])).status, 200);
  assert.equal(managed(upstream.requests[0])['x-consumer-id'], '7');
});

test('streams of HTTP/2 that are reset at any moment leave nothing behind', async (t) => {
  const host = await start(
    t,
    `tokenward_config $DIR/tokenward.json; tokenward_endpoint /introspect; tokenward_zone 256k;
     server { listen 127.0.0.1:$PORT0 http2; http2_max_concurrent_streams 256; tokenward on;
       location = /introspect { internal; proxy_pass http://127.0.0.1:${as.port}/introspect; }
       location = /metrics { tokenward off; tokenward_metrics; }
       location / { proxy_pass ${upstream.url}; } }`,
    { files: { 'tokenward.json': document({ token_from: ['header', 'body'] }) } },
  );
  const session = http2.connect(host.url);
  t.after(() => session.destroy());
  const ask = (headers, body, reset) =>
    new Promise((resume) => {
      const stream = session.request({ ':path': '/x', ...headers }, { endStream: body === undefined });
      let status = 0;
      stream.on('response', (answer) => (status = answer[':status']));
      stream.on('error', () => {}).on('close', () => resume(status)).resume();
      if (body !== undefined) stream.end(body);
      if (reset !== undefined) setTimeout(() => stream.close(http2.constants.NGHTTP2_CANCEL), reset);
    });
  const form = { ':method': 'POST', 'content-type': 'application/x-www-form-urlencoded' };
  for (let round = 0; round < 6; round++) {
    const statuses = await Promise.all(
      Array.from({ length: 60 }, (_, i) => {
        const token = `good-h2-${round}-${i >> 2}`;
        return ask(i % 3 ? { authorization: `Bearer ${token}` } : form, i % 3 ? undefined : `a=1&access_token=${token}`, i % 4 === 0 ? i % 8 : undefined);
      }),
    );
    statuses.forEach((status, i) => i % 4 && assert.equal(status, 200, `${round}/${i}`));
  }
  const metrics = await new Promise((resume) => {
    let text = '';
    session.request({ ':path': '/metrics' }).setEncoding('utf8').on('data', (piece) => (text += piece)).on('end', () => resume(text));
  });
  assert.match(metrics, /^tokenward_in_flight 0$/m);
});
