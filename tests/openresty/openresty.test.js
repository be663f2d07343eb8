// The library in real workers: vectors, its own promises, crowds, clients that go away, workers that end, memory.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import http from 'node:http';
import http2 from 'node:http2';

import { ROOT, close, eventually, listen } from '../gateway/support/parts.js';
import { fetchOnce, startEndpoint, startServer } from './support/server.js';

const LOCATION = (port) => `
    location = /_tokenward/introspect {
      internal;
      rewrite_by_lua_block { require("resty.tokenward.capture").send() }
      header_filter_by_lua_block { require("resty.tokenward.capture").receive() }
      body_filter_by_lua_block { require("resty.tokenward.capture").bound() }
      proxy_pass http://127.0.0.1:${port}/introspect;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }`;

const GATE = (port, more = '') => `
  package.loaded.gate = assert(require("resty.tokenward").new({
    config = { introspection_url = "http://127.0.0.1:${port}/introspect", authorization_value = "Basic eA==", ttl = 3600, timeout = 5000 },
    consumers = { { id = "1", username = "alice" } }, transport = "capture" ${more}
  }))`;

const PROTECTED = `
    location / {
      access_by_lua_block { require("gate"):access() }
      content_by_lua_block { ngx.say(ngx.var.http_x_consumer_id or "nobody") }
    }`;

test('every vector through the Lua API', async (t) => {
  const server = await startServer(t, {
    http: 'server { listen 127.0.0.1:PORT; location / { content_by_lua_block { require("vectors").run(ngx.var.arg_path, ngx.var.arg_path .. "-files") } } }',
  });
  const path = join(server.path, 'vectors.json');
  await writeFile(path, execFileSync(join(ROOT, 'tests/openresty/vectors.py'), { maxBuffer: 1 << 30 }));
  const { body } = await fetchOnce(`${server.url}/?path=${path}`);
  const total = /test result: ok\. (\d+) passed; 0 failed;/.exec(body);
  assert.ok(total, body);
  assert.ok(Number(total[1]) > 890, body);
});

test('the library keeps its promises', async (t) => {
  const active = '{"active":true,"username":"alice","client_id":"app"}';
  const endpoint = await startEndpoint(t, (token) => ({
    body: token === 'long' ? active.padEnd(5000) : active,
    delay: token === 'slow' ? 3000 : 0,
    end: {
      cut: (socket) => {
        socket.end(`HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"active":true`);
      },
      closed: (socket) => socket.destroy(),
    }[token],
  }));
  const server = await startServer(t, {
    http: 'lua_shared_dict small 12k; server { listen 127.0.0.1:PORT; location / { content_by_lua_block { require("api").run() } } }',
  });
  const { status, body } = await fetchOnce(`${server.url}/?endpoint=${endpoint.port}`);
  assert.equal(status, 200, `${body}${server.said}`);
  const results = JSON.parse(body);
  assert.ok(results.length >= 12);
  t.diagnostic(server.said);
  for (const { name, problem } of results) await t.test(name, () => assert.equal(problem, undefined));
});

for (const direct of ['nil', '"module"', 'false']) {
  test(`1000 requests at once with one new token ask once, direct = ${direct}`, async (t) => {
    const endpoint = await startEndpoint(t, () => ({ delay: 300 }));
    const server = await startServer(t, {
      init: GATE(endpoint.port, `, direct = ${direct}`),
      http: `server { listen 127.0.0.1:PORT backlog=4096; ${LOCATION(endpoint.port)} ${PROTECTED} }`,
    });
    const answers = await Promise.all(Array.from({ length: 1000 }, () => fetchOnce(`${server.url}/x`, 'abc')));
    assert.deepEqual(new Set(answers.map(({ status, body }) => `${status} ${body}`)), new Set(['200 1\n']));
    assert.equal(endpoint.calls.length, 1);
    const { authorization, 'content-type': type } = endpoint.calls[0].headers;
    assert.deepEqual([authorization, type], ['Basic eA==', 'application/x-www-form-urlencoded']);
  });
}

test('nothing of the client reaches the endpoint, and the location is nobody else’s', async (t) => {
  const endpoint = await startEndpoint(t, () => ({}));
  const server = await startServer(t, {
    init: GATE(endpoint.port),
    http: `server { listen 127.0.0.1:PORT; ${LOCATION(endpoint.port)} ${PROTECTED}
      location = /direct { content_by_lua_block { local answer = ngx.location.capture("/_tokenward/introspect"); ngx.say(answer.status) } } }`,
  });
  assert.equal((await fetchOnce(`${server.url}/x`, 'abc')).status, 200);
  const { headers } = endpoint.calls[0];
  assert.deepEqual(Object.keys(headers).sort(), ['accept', 'accept-encoding', 'authorization', 'content-length', 'content-type', 'host']);
  assert.equal((await fetchOnce(`${server.url}/_tokenward/introspect`)).status, 404);
  assert.equal((await fetchOnce(`${server.url}/direct`)).body, '404\n');
  assert.equal(endpoint.calls.length, 1);
});

test('clients that go away, whoever asks, lose nobody’s wake-up', async (t) => {
  const endpoint = await startEndpoint(t, () => ({ delay: 400 }));
  const server = await startServer(t, {
    init: GATE(endpoint.port),
    http: `lua_check_client_abort on; server { listen 127.0.0.1:PORT; ${LOCATION(endpoint.port)} ${PROTECTED} }`,
  });
  const leaving = [];
  // The one that asks, then some of those that wait.
  fetchOnce(`${server.url}/x`, 'abc', { begun: (request) => leaving.push(request) });
  await eventually('the endpoint is asked', () => endpoint.calls.length === 1);
  for (let i = 0; i < 10; i++) fetchOnce(`${server.url}/x`, 'abc', { begun: (request) => leaving.push(request) });
  const staying = Array.from({ length: 20 }, () => fetchOnce(`${server.url}/x`, 'abc'));
  await new Promise((resume) => setTimeout(resume, 100));
  const before = performance.now();
  for (const request of leaving) request.destroy();
  const answers = await Promise.all(staying);
  assert.ok(answers.every(({ status }) => status === 200), JSON.stringify(answers.map(({ status }) => status)));
  assert.ok(performance.now() - before < 2500);
  assert.equal(endpoint.calls.length, 2);
});

test('a light thread that is killed does not take the call with it', async (t) => {
  const endpoint = await startEndpoint(t, () => ({ delay: 300 }));
  const server = await startServer(t, {
    init: GATE(endpoint.port).replace('transport = "capture"', `transport = function(call)
      local socket = ngx.socket.tcp()
      assert(socket:connect("127.0.0.1", ${endpoint.port}))
      socket:send("POST /introspect HTTP/1.0\\r\\nContent-Length: " .. #call.body .. "\\r\\n\\r\\n" .. call.body)
      local all = socket:receive("*a")
      return { status = 200, headers = { { "content-type", "application/json" } }, body = all:match("\\r\\n\\r\\n(.*)$") }
    end`),
    http: `server { listen 127.0.0.1:PORT; ${PROTECTED}
      location = /kills { content_by_lua_block {
        local thread = ngx.thread.spawn(function() require("gate"):check() end)
        ngx.sleep(0.05)
        ngx.say(tostring(ngx.thread.kill(thread)))
        ngx.flush(true)
        ngx.sleep(3)
      } } }`,
  });
  const kills = fetchOnce(`${server.url}/kills`, 'abc');
  await eventually('the endpoint is asked', () => endpoint.calls.length === 1);
  const before = performance.now();
  const answers = await Promise.all(Array.from({ length: 10 }, () => fetchOnce(`${server.url}/x`, 'abc')));
  assert.ok(answers.every(({ status }) => status === 200));
  assert.ok(performance.now() - before < 1500, 'nobody waits for the deadline');
  assert.equal(endpoint.calls.length, 1);
  assert.equal((await kills).body, '1\n');
});

test('a worker that ends answers those it has, and what it counted stays', async (t) => {
  const endpoint = await startEndpoint(t, () => ({ delay: 500 }));
  const server = await startServer(t, {
    workers: 2,
    init: GATE(endpoint.port, ', metrics = "counters"'),
    http: `lua_shared_dict counters 1m; server { listen 127.0.0.1:PORT reuseport; ${LOCATION(endpoint.port)} ${PROTECTED}
      location = /metrics { content_by_lua_block { ngx.print(require("gate"):metrics()) } } }`,
  });
  const value = async (series) => {
    const { body } = await fetchOnce(`${server.url}/metrics`);
    return Number(body.split('\n').find((line) => line.startsWith(`${series} `))?.split(' ')[1]);
  };
  for (let i = 0; i < 20; i++) assert.equal((await fetchOnce(`${server.url}/x`)).status, 401);
  const series = 'tokenward_decisions_total{outcome="deny",reason="token_missing"}';
  await eventually('both workers have told', async () => (await value(series)) === 20);
  const children = () => readFileSync(`/proc/${server.pid}/task/${server.pid}/children`, 'utf8').trim().split(' ');
  const [first] = children();
  const parked = Array.from({ length: 30 }, () => fetchOnce(`${server.url}/x`, 'abc'));
  await eventually('the endpoint is asked', () => endpoint.calls.length > 0);
  process.kill(Number(first), 'SIGQUIT');
  const answers = await Promise.all(parked);
  assert.ok(answers.every(({ status }) => status === 200), JSON.stringify(answers));
  await eventually('another worker took its place', () => !children().includes(first) && children().length === 2);
  assert.equal(await value(series), 20);
  assert.equal(await server.stop('SIGQUIT'), 0);
  assert.doesNotMatch(server.said, /\[(alert|emerg|crit)\]|panicked/);
});

for (const [direct, used] of [['nil', 'true'], ['true', 'true'], ['"module"', 'nil'], ['false', 'nil']]) {
  test(`headers reach the upstream whole, direct = ${direct}`, async (t) => {
    const name = 'X-'.padEnd(200, 'n');
    const roles = Array.from({ length: 40 }, (_, n) => `role-${n}`);
    const endpoint = await startEndpoint(t, () => ({ body: { active: true, username: 'alice', sub: 'ü\u0001', roles } }));
    const seen = [];
    const upstream = http.createServer((incoming, outgoing) => {
      seen.push(incoming.rawHeaders);
      outgoing.end('ok');
    });
    const port = await listen(upstream);
    t.after(() => close(upstream));
    const server = await startServer(t, {
      init: GATE(endpoint.port, `, direct = ${direct}`).replace('ttl = 3600', 'ttl = 3600, array_format = "repeat", custom_claims_forward = { "roles" }'),
      http: `underscores_in_headers on; server { listen 127.0.0.1:PORT; large_client_header_buffers 8 32k; ${LOCATION(endpoint.port)}
        location = /used { content_by_lua_block { ngx.print(tostring(require("gate").current.has_list)) } }
        location / { access_by_lua_block { require("gate"):access() } proxy_pass http://127.0.0.1:${port}; proxy_pass_request_body off; } }`,
    });
    const send = (headers) =>
      new Promise((resume, fail) => {
        http
          .get(`${server.url}/x`, { agent: false, headers: { Authorization: 'Bearer abc', ...headers } }, (incoming) => {
            incoming.resume().on('end', () => resume(incoming.statusCode));
          })
          .on('error', fail);
      });
    const many = Object.fromEntries(Array.from({ length: 30 }, (_, n) => [`X-Many-${n}`, `${n}`]));
    const after = { ...Object.fromEntries(Array.from({ length: 150 }, (_, n) => [`X-Many-${n}`, `${n}`])), 'X-Consumer-ID': 'root' };
    for (const headers of [{}, {}, { [name]: 'v'.repeat(8000) }, many, after, after, { 'x_consumer-id': 'root', 'X-Credential-Roles': 'root' }, {}]) {
      assert.equal(await send(headers), 200);
      const raw = seen.pop();
      const pairs = raw.flatMap((_, at) => (at % 2 ? [] : [[raw[at], raw[at + 1]]]));
      const ours = pairs.filter(([key]) => /^x[-_]c(onsumer|redential)/i.test(key));
      assert.deepEqual(ours, [
        ['X-Consumer-ID', '1'],
        ['X-Consumer-Username', 'alice'],
        ['X-Credential-Sub', "UTF-8''%C3%BC%01"],
        ['X-Credential-Identifier', 'alice'],
        ...roles.map((role) => ['X-Credential-roles', role]),
      ]);
      for (const [key, value] of Object.entries(headers)) {
        if (/^x-(many|nn)/i.test(key)) assert.deepEqual(pairs.filter(([found]) => found === key), [[key, value]]);
      }
      assert.ok(!pairs.some(([key]) => /authorization|probe/i.test(key)));
    }
    assert.equal((await fetchOnce(`${server.url}/used`)).body, used);
  });
}

test('what later phases see, in ngx.ctx', async (t) => {
  const endpoint = await startEndpoint(t, (token) => ({
    body: token === 'bad' ? { active: false } : { active: true, username: 'alice', sub: 's', roles: ['a'] },
  }));
  const server = await startServer(t, {
    init: GATE(endpoint.port, ', context = true, keep = { "sub", "roles", "none" }'),
    http: `server { listen 127.0.0.1:PORT; ${LOCATION(endpoint.port)}
      location / {
        access_by_lua_block { require("gate"):access() }
        header_filter_by_lua_block { ngx.header["X-Seen"] = require("cjson").encode(ngx.ctx.tokenward) }
        content_by_lua_block { ngx.say("ok") }
      } }`,
  });
  const seen = async (token) => JSON.parse((await fetchOnce(`${server.url}/x`, token)).headers['x-seen']);
  const allowed = { allow: true, identity: 'consumer', consumer_id: '1', consumer_username: 'alice', sub: 's', roles: '["a"]' };
  assert.deepEqual(await seen('good'), { ...allowed, source: 'endpoint' });
  assert.deepEqual(await seen('good'), { ...allowed, source: 'cache' });
  assert.deepEqual(await seen('bad'), { allow: false, source: 'endpoint', reason: 'token_inactive', status: 401 });
});

for (const direct of ['nil', '"module"', 'false']) {
  test(`a decision survives a redirect within nginx, direct = ${direct}`, async (t) => {
    const endpoint = await startEndpoint(t, (token) => ({ body: { active: true, username: token === 'bob' ? 'bob' : 'alice', scope: 'read' } }));
    const gate = `package.loaded.NAME = assert(require("resty.tokenward").new({
      config = { introspection_url = "http://127.0.0.1:${endpoint.port}/introspect", authorization_value = "Basic eA==", MORE },
      consumers = { { id = "1", username = "alice" }, { id = "2", username = "bob" } }, transport = "capture", direct = ${direct} })) `;
    const access = (what) => `access_by_lua_block { ${what} }`;
    const show = `content_by_lua_block {
      local headers = ngx.req.get_headers(0)
      ngx.say(tostring(headers["x-consumer-id"]), " ", tostring(headers["x-consumer-username"]), " ", tostring(headers["authorization"]),
        " ", tostring(headers["x-credential-scope"]), " ", ngx.var.args or "")
    }`;
    const server = await startServer(t, {
      init: gate.replace('NAME', 'gate').replace('MORE', 'token_from = { "header", "query", "body" }')
        + gate.replace('NAME', 'other').replace('MORE', 'cache = { enabled = false }')
        + `package.loaded.writes = package.loaded.gate:policy({ require = { scopes = { "write" } } })
           package.loaded.reads = package.loaded.gate:policy({ require = { scopes = { "read" } } })`,
      http: `server { listen 127.0.0.1:PORT; ${LOCATION(endpoint.port)} error_page 418 =200 /same; error_page 419 =200 @named; recursive_error_pages on;
        location = /open { content_by_lua_block { ngx.exec("/same") } }
        location = /same { ${access('require("gate"):access()')} ${show} }
        location @named { ${access('require("gate"):access()')} ${show} }
        location = /other { ${access('require("other"):access()')} ${show} }
        location = /writes { ${access('require("gate"):access(require("writes"))')} ${show} }
        location = /reads { ${access('require("gate"):access(require("reads"))')} ${show} }
        location = /inner { internal; ${show} }
        location = /to { ${access('require("gate"):access()')} content_by_lua_block { ngx.exec(ngx.var.arg_to or "/same", "page=2") } }
        location = /via { ${access('require("gate"):access(require("reads"))')} content_by_lua_block { ngx.exec("/to", { to = ngx.var.arg_to }) } }
        location = /error { ${access('require("gate"):access()')} content_by_lua_block { ngx.exit(418) } }
        location = /named { ${access('require("gate"):access()')} content_by_lua_block { ngx.exit(419) } }
        location = /try { ${access('require("gate"):access()')} try_files /nothing /same; }
        location = /bare { content_by_lua_block { ngx.req.clear_header("Authorization") ngx.exec("/same") } }
        location = /theirs { ${access('require("gate"):access()')} content_by_lua_block {
          ngx.req.set_header("Authorization", "Basic dXBzdHJlYW0=") ngx.exec("/same") } }
        location = /replaced { ${access('require("gate"):access()')} content_by_lua_block {
          assert(require("gate"):replace_consumers(assert(require("resty.tokenward").document({
            config = { introspection_url = "https://as.example/", authorization_value = "x" }, consumers = { { id = "3", username = "alice" } } }))))
          ngx.exec("/same") } }
        location = /sub { ${access('require("gate"):access()')} content_by_lua_block { ngx.print(ngx.location.capture("/rewrites").body) } }
        location = /rewrites { rewrite_by_lua_block { local d = require("gate"):check() ngx.print(d.reason or "allowed") ngx.exit(200) } }
      }`,
    });
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    t.after(() => agent.destroy());
    const answer = (path, token, body) =>
      new Promise((resume, fail) => {
        const headers = { ...(token && { Authorization: `Bearer ${token}` }), 'X-Consumer-ID': 'root', 'Api-Signature': 'x', A: '1', ...(body && { 'Content-Type': 'application/x-www-form-urlencoded' }) };
        http
          .request(server.url + path, { agent, method: body ? 'POST' : 'GET', headers }, (incoming) => {
            let text = '';
            incoming.setEncoding('utf8').on('data', (more) => (text += more));
            incoming.on('end', () => resume(incoming.statusCode === 200 ? text.trim() : incoming.statusCode));
          })
          .on('error', fail)
          .end(body);
      });
    const alice = '1 alice nil read';
    // Twice: the first asks, the second is a hit.
    for (let round = 0; round < 3; round++) {
      for (const path of ['/open', '/same', '/other', '/reads', '/to', '/to?to=/other', '/to?to=/reads', '/to?to=/inner', '/via?to=/other', '/via?to=/reads', '/error', '/named', '/try']) {
        assert.deepEqual([path, round, (await answer(path, 'abc')).toString().replace(/ (page|to)=.*/, '')], [path, round, alice]);
        // Another on the same connection is another, and nobody is nobody.
        assert.deepEqual([path, (await answer(path, 'bob')).toString().replace(/ (page|to)=.*/, '')], [path, '2 bob nil read']);
        assert.deepEqual([path, await answer(path)], [path, 401]);
      }
      assert.equal(await answer('/to?to=/writes', 'abc'), 403, 'another policy decides anew');
      assert.equal(await answer('/via?to=/writes', 'abc'), 403);
      assert.equal(await answer('/bare', 'abc'), 401, 'what the server took away itself is not brought back');
      assert.equal(await answer('/sub', 'abc'), 'token_missing', 'a subrequest is another request');
    }
    // A gate without a cache was asked anew, with the client's own token.
    assert.ok(endpoint.calls.every(({ token }) => token === 'abc' || token === 'bob'));
    // The arguments of a redirect are its own.
    assert.equal(await answer('/to?access_token=abc'), `${alice} page=2`);
    assert.equal(await answer('/same?a=b&access_token=abc'), `${alice} a=b`);
    // A token that was hidden from the body: the same policy stands, another refuses and says why.
    assert.equal(await answer('/to', undefined, 'access_token=abc&x=y'), `${alice} page=2`);
    assert.equal(await answer('/to?to=/other', undefined, 'access_token=abc&x=y'), 401);
    assert.equal(await answer('/replaced', 'abc'), '3 alice nil read', 'consumers that changed meanwhile are those of the new decision');
    await eventually('the log names the trap', () => /was redirected within nginx/.test(server.said));
    assert.ok(!/\[(alert|emerg|crit|error)\]|panicked/.test(server.said), server.said);
  });
}

test('a transport that never ends is ended at the deadline', async (t) => {
  const server = await startServer(t, {
    init: GATE(1)
      .replace('timeout = 5000', 'timeout = 300')
      .replace('transport = "capture"', 'transport = function() while true do ngx.sleep(0.05) package.loaded.turns = (package.loaded.turns or 0) + 1 end end'),
    http: `server { listen 127.0.0.1:PORT; ${PROTECTED} location = /turns { content_by_lua_block { ngx.print(package.loaded.turns) } } }`,
  });
  const before = performance.now();
  const answers = await Promise.all(Array.from({ length: 3 }, () => fetchOnce(`${server.url}/x`, 'abc')));
  assert.deepEqual(answers.map(({ status }) => status), [503, 503, 503]);
  assert.ok(performance.now() - before < 2000);
  const turns = async () => (await fetchOnce(`${server.url}/turns`)).body;
  const ended = await turns();
  await new Promise((resume) => setTimeout(resume, 200));
  assert.equal(await turns(), ended, 'its thread is gone');
});

test('over HTTP/2 a call needs a transport of Lua, and an internal location refuses', async (t) => {
  const server = await startServer(t, {
    init: `${GATE(1).replace('transport = "capture"', `transport = function()
      ngx.sleep(0.01)
      return { status = 200, headers = { { "content-type", "application/json" } }, body = '{"active":true,"username":"alice"}' }
    end`)} package.loaded.captures = ${GATE(1).trim().replace('package.loaded.gate = ', '')}`,
    http: `server { listen 127.0.0.1:PORT http2; ${LOCATION(1)} ${PROTECTED}
      location /captures { access_by_lua_block { require("captures"):access() } content_by_lua_block { ngx.say("in") } } }`,
  });
  const client = http2.connect(server.url);
  t.after(() => client.close());
  const send = (path) =>
    new Promise((resume, fail) => {
      const stream = client.request({ ':path': path, authorization: 'Bearer abc', 'x-consumer-id': 'root' });
      let body = '';
      let status;
      stream.on('response', (headers) => (status = headers[':status']));
      stream.setEncoding('utf8').on('data', (more) => (body += more));
      stream.on('end', () => resume([status, body])).on('error', fail);
    });
  assert.deepEqual(await Promise.all([send('/x'), send('/y')]), [[200, '1\n'], [200, '1\n']]);
  assert.deepEqual(await send('/x'), [200, '1\n']);
  assert.equal((await send('/captures'))[0], 503);
  await eventually('the log says why', () => /ngx\.location\.capture works in no HTTP\/2 request/.test(server.said));
});

test('an error of Lua amid a hit lets nobody in, and the next request goes its way', async (t) => {
  const endpoint = await startEndpoint(t, () => ({}));
  const server = await startServer(t, {
    init: `${GATE(endpoint.port, ', keep = { "sub" }')} local gate = package.loaded.gate
      function gate:remember() if ngx.var.arg_fail then error("out of paper") end end`,
    http: `server { listen 127.0.0.1:PORT; ${LOCATION(endpoint.port)} ${PROTECTED} }`,
  });
  assert.equal((await fetchOnce(`${server.url}/x`, 'abc')).status, 200);
  for (let round = 0; round < 5; round++) {
    assert.equal((await fetchOnce(`${server.url}/x?fail=1`, 'abc')).status, 500);
    assert.equal((await fetchOnce(`${server.url}/x`, 'other?'.slice(0, 5) + round)).status, 200);
    assert.equal((await fetchOnce(`${server.url}/x`, 'abc')).body, '1\n');
  }
});

test('a refusal is whole when the collector takes its step before it is sent', async (t) => {
  const endpoint = await startEndpoint(t, () => ({ body: { active: false } }));
  const server = await startServer(t, {
    init: `${GATE(endpoint.port)} local current = package.loaded.gate.current
      local refuse, internal = current.refuse, current.internal
      current.refuse = function(refusal) collectgarbage() collectgarbage() return refuse(refusal) end
      function current.internal(gate) local refusal = internal(gate) collectgarbage() collectgarbage() return refusal end`,
    http: `server { listen 127.0.0.1:PORT; ${LOCATION(endpoint.port)} ${PROTECTED}
      location /internal { access_by_lua_block {
        local gate = require("gate")
        local broken = setmetatable({ current = setmetatable({ is_direct = false, begin = function() return nil, "broken" end }, { __index = gate.current }) },
          { __index = gate })
        getmetatable(gate).__index.access(broken) } } }`,
  });
  for (const [path, token, status, challenge, error] of [
    ['/x', undefined, 401, 'Bearer realm="service"', 'invalid_request'],
    ['/x', 'abc', 401, 'Bearer realm="service", error="invalid_token", error_description="The access token is not active"', 'invalid_token'],
    ['/x', 'a b', 400, 'Bearer realm="service", error="invalid_request"', 'invalid_request'],
    ['/internal', 'abc', 500, undefined, 'server_error'],
  ]) {
    for (let round = 0; round < 3; round++) {
      const answer = await fetchOnce(server.url + path, token);
      assert.equal(answer.status, status, `${path} ${answer.body} ${server.said}`);
      assert.equal(answer.headers['www-authenticate']?.split(', error_d')[0], challenge?.split(', error_d')[0]);
      assert.equal(answer.headers['cache-control'], 'no-store');
      assert.equal(answer.body ? JSON.parse(answer.body).error : undefined, error);
    }
  }
});

test('memory stays flat over 200 000 requests', async (t) => {
  const server = await startServer(t, {
    init: GATE(1).replace('transport = "capture"', `context = true, transport = function(call)
      return { status = 200, headers = { { "content-type", "application/json" } },
        body = call.body:find("junk", 1, true) and '{"active":false}' or '{"active":true,"username":"alice"}' }
    end`).replace('ttl = 3600', 'ttl = 3600, cache = { negative_capacity = 1000 }'),
    http: `server { listen 127.0.0.1:PORT; ${PROTECTED}
      location = /collect { content_by_lua_block { collectgarbage() collectgarbage() ngx.say(collectgarbage("count")) } } }`,
  });
  const script = join(server.path, 'requests.lua');
  await writeFile(script, `local n = 0
function request()
  n = n + 1
  local token = n % 4 == 0 and "junk" .. n or "good"
  return wrk.format("GET", "/x", { Authorization = "Bearer " .. token })
end`);
  const [worker] = readFileSync(`/proc/${server.pid}/task/${server.pid}/children`, 'utf8').trim().split(' ');
  const resident = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${worker}/status`, 'utf8'))[1]);
  let requests = 0;
  const round = (seconds) => {
    const said = execFileSync('wrk', ['-t1', '-c16', `-d${seconds}s`, '-s', script, server.url], { encoding: 'utf8' });
    requests += Number(/(\d+) requests in/.exec(said)[1]);
  };
  const lua = async () => Number((await fetchOnce(`${server.url}/collect`)).body);
  round(3);
  const before = { resident: resident(), lua: await lua() };
  requests = 0;
  while (requests < 200_000) round(3);
  const after = { resident: resident(), lua: await lua() };
  t.diagnostic(`${requests} requests: resident ${before.resident} -> ${after.resident} KiB, Lua ${before.lua} -> ${after.lua} KiB`);
  assert.ok(after.resident < before.resident * 1.05 + 4096, JSON.stringify([before, after]));
  assert.ok(after.lua < before.lua * 1.05 + 256, JSON.stringify([before, after]));
});
