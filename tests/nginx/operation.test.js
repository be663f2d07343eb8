// Running it: reloads under load, several workers, many clients at once, bodies, connections; and a worker under valgrind.

import assert from 'node:assert/strict';
import http from 'node:http';
import { readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';

import { bearer, exchange, request } from '../gateway/support/client.js';
import { close, eventually, folder, listen } from '../gateway/support/parts.js';
import { managed, startUpstream, values } from '../gateway/support/upstream.js';
import { start } from './support/nginx.js';

let as, upstream;
before(async () => {
  as = { calls: [], delay: 0 };
  as.server = http.createServer({ keepAliveTimeout: 60_000 }, (incoming, answer) => {
    let body = '';
    incoming.on('data', (piece) => (body += piece));
    incoming.on('end', () => {
      const token = new URLSearchParams(body).get('token');
      as.calls.push(token);
      setTimeout(() => {
        answer.writeHead(200, { 'Content-Type': 'application/json' });
        answer.end(JSON.stringify({ active: !token.startsWith('bad'), username: 'alice' }));
      }, as.delay);
    });
  });
  as.port = await listen(as.server);
  upstream = await startUpstream();
});
beforeEach(() => {
  as.calls.length = 0;
  as.delay = 0;
  upstream.requests.length = 0;
});
after(() => Promise.all([close(as.server), upstream.stop()]));

const CONSUMERS = [{ id: '7', username: 'alice' }];
const document = (fields) => JSON.stringify({ introspection_url: `http://127.0.0.1:${as.port}/`, authorization_value: 'x', consumers: CONSUMERS, ...fields });
const block = (locations = '', before = '') => `
  tokenward_config $DIR/tokenward.json; tokenward_endpoint /introspect; tokenward_zone 256k; ${before}
  upstream authorization_server { server 127.0.0.1:${as.port} max_fails=0; keepalive 64; }
  server { listen 127.0.0.1:$PORT0 backlog=4096; client_max_body_size 0;
    location = /introspect { internal; proxy_pass http://authorization_server/; proxy_http_version 1.1; proxy_set_header Connection ""; }
    location / { tokenward on; proxy_pass ${upstream.url}; proxy_http_version 1.1; }
    location = /gif { tokenward on; empty_gif; }
    location = /metrics { tokenward_metrics; }
    ${locations}
  }`;
const nginx = (t, { fields, locations, before, ...options } = {}) => start(t, block(locations, before), { ...options, files: { 'tokenward.json': document(fields), ...options.files } });
const get = (host, token, path = '/gif') => request(host.url, { path, headers: [bearer(token)] });
const metric = async (host, name) => Number((await request(host.url, { path: '/metrics' })).body.match(new RegExp(`^tokenward_${name} (\\d+)$`, 'm'))[1]);

/** Sends all requests at once, each on a connection of its own that is open already, and gives statuses and how long it took. */
async function atOnce(port, tokens) {
  const sockets = await Promise.all(
    tokens.map(() => new Promise((resume, fail) => {
      const socket = net.connect(port, '127.0.0.1', () => resume(socket));
      socket.on('error', fail);
    })),
  );
  const began = performance.now();
  const statuses = await Promise.all(
    sockets.map((socket, i) => new Promise((resume, fail) => {
      socket.on('data', (piece) => (resume(piece.toString('latin1', 9, 12)), socket.destroy()));
      socket.on('error', fail);
      socket.write(`GET /gif HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer ${tokens[i]}\r\n\r\n`);
    })),
  );
  return { statuses, took: performance.now() - began };
}

test('500 new tokens at once are asked about side by side, by one worker', async (t) => {
  as.delay = 50;
  const host = await nginx(t);
  as.calls.length = 0;
  const { statuses, took } = await atOnce(host.ports[0], Array.from({ length: 500 }, (_, n) => `new-${n}`));
  t.diagnostic(`500 new tokens: ${took.toFixed(0)} ms`);
  assert.deepEqual([...new Set(statuses)], ['200']);
  assert.equal(as.calls.length, 500);
  // One after the other would be 25 s; how much less it is depends on who else is busy.
  assert.ok(took < 5000, `${took} ms`);
});

test('1000 requests at once for one new token make one call', async (t) => {
  as.delay = 50;
  const host = await nginx(t);
  const { statuses, took } = await atOnce(host.ports[0], Array(1000).fill('one-for-all'));
  assert.deepEqual([...new Set(statuses)], ['200']);
  assert.deepEqual(as.calls, ['one-for-all']);
  t.diagnostic(`1000 requests: ${took.toFixed(0)} ms`);
  assert.equal(await metric(host, 'misses_total'), 1);
});

test('a reload under load fails no request, and reads configuration and consumers again', async (t) => {
  as.delay = 5;
  const host = await nginx(t, { workers: 2 });
  let going = true;
  const results = {};
  const load = Array.from({ length: 16 }, async (_, i) => {
    for (let n = 0; going; n++) {
      const { status } = await get(host, n % 3 ? `steady-${i}` : `new-${i}-${n}`);
      results[status] = (results[status] ?? 0) + 1;
    }
  });
  for (let i = 0; i < 5; i++) {
    await new Promise((resume) => setTimeout(resume, 150));
    host.write('tokenward.json', document({ consumers: [{ id: `again-${i}`, username: 'alice' }] }));
    host.signal('SIGHUP');
  }
  await eventually('the last configuration is in force', async () => managed((await get(host, 'steady-0', '/')).json())['x-consumer-id'] === 'again-4');
  // One that is wrong changes nothing.
  host.write('tokenward.json', '{"ttl": -1}');
  host.signal('SIGHUP');
  await host.says(/`ttl`/);
  going = false;
  await Promise.all(load);
  assert.deepEqual(Object.keys(results), ['200'], JSON.stringify(results));
  assert.ok(results[200] > 100, JSON.stringify(results));
  host.stderr = host.stderr.replaceAll('[emerg]', '[expected]');
});

test('without a master nginx cannot reload, which is said, and who is connected is protected as before', async (t) => {
  const host = await nginx(t, { workers: 0, alerts: true });
  const socket = net.connect(host.ports[0], '127.0.0.1');
  t.after(() => socket.destroy());
  const ask = (token) =>
    new Promise((resume, fail) => {
      socket.once('data', (piece) => resume(piece.toString('latin1', 9, 12))).once('error', fail);
      socket.write(`GET /gif HTTP/1.1\r\nHost: a\r\n${token ? `Authorization: Bearer ${token}\r\n` : ''}\r\n`);
    });
  assert.deepEqual([await ask('good'), await ask('bad'), await ask()], ['200', '401', '401']);
  host.signal('SIGHUP');
  await host.says(/\[alert\].*cannot reload .*master_process off/);
  assert.deepEqual([await ask('good'), await ask('bad'), await ask()], ['200', '401', '401']);
  // A call may take a connection, of which nginx has none any more.
  assert.match(await ask('bad-new'), /^(401|50[0-4])$/);
});

test('counters are summed over the workers, over those that are no more, and over a reload', async (t) => {
  const host = await nginx(t, { workers: 3 });
  for (let i = 0; i < 60; i++) await get(host, `token-${i % 7}`);
  const total = async () => (await metric(host, 'hits_total')) + (await metric(host, 'misses_total')) + (await metric(host, 'waits_total'));
  await eventually('all are counted', async () => (await total()) === 60, { every: 100 });
  assert.match((await request(host.url, { path: '/metrics' })).headers['content-type'], /^text\/plain; version=0\.0\.4/);
  process.kill(host.workers()[0], 'SIGKILL');
  await eventually('a new one is there', () => host.workers().length === 3);
  host.stderr = host.stderr.replaceAll(/\[alert\].*exited on signal 9/g, '');
  await eventually('nothing is lost', async () => (await total()) === 60, { every: 100 });
  host.signal('SIGHUP');
  await eventually('the workers are new', async () => (await metric(host, 'cache_entries')) === 0, { every: 100 });
  assert.equal(await total(), 60);
  host.stderr = host.stderr.replaceAll(/\[alert\].*exited on signal 9/g, '');
});

test('without a zone a worker counts for itself', async (t) => {
  const host = await start(t, block().replace('tokenward_zone 256k;', ''), { files: { 'tokenward.json': document() } });
  await get(host, 'a');
  assert.equal(await metric(host, 'misses_total'), 1);
});

test('a token in a body is found in memory and in a temporary file, and cut out of both', async (t) => {
  const host = await nginx(t, { fields: { token_from: ['body'] }, before: 'client_body_buffer_size 8k;' });
  const form = ['Content-Type', 'application/x-www-form-urlencoded'];
  for (const size of [10, 20_000, 900_000]) {
    const padding = 'x'.repeat(size);
    for (const [body, expected] of [[`access_token=abc&a=${padding}`, `a=${padding}`], [`a=${padding}&access_token=abc`, `a=${padding}`]]) {
      for (const sent of [body, (one) => one.end(body)]) {
        const answer = await request(host.url, { method: 'POST', headers: [form], body: sent });
        assert.equal(answer.status, 200, answer.body);
        const seen = answer.json();
        assert.equal(seen.length, expected.length);
        if (seen.body) assert.equal(seen.body, expected);
        assert.deepEqual(values(seen, 'content-length'), [String(expected.length)]);
        assert.deepEqual(values(seen, 'transfer-encoding'), []);
      }
    }
  }
  // Over `limits.body_bytes` it is not searched, and passes for nobody.
  const long = await request(host.url, { method: 'POST', headers: [form], body: `access_token=abc&a=${'x'.repeat(1 << 20)}` });
  assert.equal(long.status, 401);
  assert.equal(await metric(host, 'bodies_not_searched_total'), 1);
  const waiting = await request(host.url, { method: 'POST', headers: [form], body: async (one) => (one.write('access_'), await new Promise((resume) => setTimeout(resume, 50)), one.end('token=later')) });
  assert.equal(waiting.status, 200);
  const expecting = await exchange(
    host.url,
    'POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 16\r\n\r\n',
    { on: [[/^HTTP\/1\.1 100 /, 'access_token=abc']] },
  );
  assert.match(expecting, /^HTTP\/1\.1 100 [^]*HTTP\/1\.1 200 /);
});

test('pipelined requests are answered in order, though each has to ask', async (t) => {
  as.delay = 20;
  const host = await nginx(t);
  const get = (token, last) => `GET /gif HTTP/1.1\r\nHost: a\r\n${token ? `Authorization: Bearer ${token}\r\n` : ''}${last ? 'Connection: close\r\n' : ''}\r\n`;
  const answers = await exchange(host.url, get('p1') + get('bad1') + get('p2') + get('') + get('p1') + get('bad2', true));
  assert.deepEqual(answers.match(/HTTP\/1\.1 \d+/g).map((line) => line.slice(9)), ['200', '401', '200', '401', '200', '401']);
});

/** Thousands of requests of every kind, many of which go away at some moment. */
async function torment(host, rounds) {
  const port = host.ports[0];
  let answered = 0;
  let number = 0;
  const kinds = [
    () => `GET /gif HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer known\r\n\r\n`,
    () => `GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer new-${number}\r\nX-Consumer-ID: root\r\n\r\n`,
    () => `GET /gif HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer shared-${number >> 3}\r\n\r\n`,
    () => `GET /gif HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer bad-${number}\r\n\r\n`,
    () => `HEAD / HTTP/1.1\r\nHost: a\r\n\r\n`,
    () => `GET /missing/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer known\r\n\r\n`,
    () => `GET /?access_token=query-${number % 50}&a=1 HTTP/1.1\r\nHost: a\r\n\r\n`,
    () => `POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 20\r\n\r\naccess_token=body&a=`,
    () => `POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n11\r\naccess_token=body\r\n0\r\n\r\n`,
    () => `POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 20000\r\n\r\naccess_token=file&a=${'x'.repeat(19_980)}`,
    () => `GET /strict HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer known\r\n\r\n`,
    () => `GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n`,
    () => `GET /dead HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer dead-${number}\r\n\r\n`,
  ];
  const one = () => new Promise((resume) => {
    const kind = kinds[number++ % kinds.length];
    const text = kind();
    const socket = net.connect(port, '127.0.0.1');
    const patience = setTimeout(() => socket.destroy(), 10_000);
    socket.on('error', () => {});
    socket.on('close', () => (clearTimeout(patience), resume()));
    socket.once('data', () => (answered++, socket.destroy()));
    // A third goes away, after all, a part, or in a moment.
    if (number % 9 === 0) socket.end(text.slice(0, text.length / 2));
    else if (number % 9 === 3) socket.write(text, () => setTimeout(() => socket.destroy(), number % 7));
    else if (number % 9 === 6) socket.write(text, () => socket.resetAndDestroy());
    else socket.write(text + (number % 5 === 0 ? text : ''));
  });
  const lanes = Array.from({ length: 24 }, async () => {
    for (let i = 0; i < rounds / 24; i++) await one();
  });
  await Promise.all(lanes);
  return answered;
}

const TORMENTED = {
  fields: { token_from: ['header', 'query', 'body'], timeout: 400, cache: { capacity: 200, negative_capacity: 50 } },
  before: 'client_body_buffer_size 8k;',
};
const more = () => `
  location /missing { tokenward on; try_files $uri @app; }
  location @app { tokenward on; proxy_pass ${upstream.url}; }
  location /strict { tokenward on; tokenward_policy '{"require": {"scopes": ["write"]}}'; error_page 403 /gif; proxy_pass ${upstream.url}; }
  location /dead { tokenward on; tokenward_endpoint /nobody; empty_gif; }
  location = /nobody { internal; proxy_pass http://127.0.0.1:1; }`;

test('a worker under valgrind makes no error through thousands of requests of every kind', async (t) => {
  const path = await folder((stop) => t.after(stop));
  as.delay = 3;
  const log = join(path, 'valgrind');
  const suppressions = join(path, 'nginx.supp');
  // nginx itself: it gives padding of structures to the system, and does not free its environment.
  writeFileSync(
    suppressions,
    '{\n  epoll\n  Memcheck:Param\n  epoll_ctl(event)\n  fun:epoll_ctl\n}\n' +
      '{\n  environment\n  Memcheck:Leak\n  fun:malloc\n  fun:ngx_alloc\n  fun:ngx_set_environment\n}\n',
  );
  const host = await nginx(t, {
    ...TORMENTED,
    locations: more(),
    workers: 0,
    log: 'crit',
    wrapper: ['valgrind', '--error-exitcode=99', '--leak-check=full', '--show-leak-kinds=definite', '--errors-for-leak-kinds=definite', `--suppressions=${suppressions}`, `--log-file=${log}`],
  });
  const answered = await torment(host, 3000);
  assert.ok(answered > 1500, `${answered} answered`);
  const { status } = await host.stop();
  const said = readFileSync(log, 'utf8');
  assert.match(said, /ERROR SUMMARY: 0 errors/, said);
  assert.equal(status, 0, said);
});

test('a worker does not grow', async (t) => {
  as.delay = 1;
  const host = await nginx(t, { ...TORMENTED, locations: more(), log: 'crit' });
  const [worker] = host.workers();
  const resident = () => Number(readFileSync(`/proc/${worker}/status`, 'utf8').match(/VmRSS:\s+(\d+)/)[1]);
  await torment(host, 6000);
  const before = resident();
  for (let i = 0; i < 3; i++) await torment(host, 6000);
  const after = resident();
  t.diagnostic(`resident: ${before} kB, then ${after} kB`);
  assert.ok(after < before * 1.1 + 1024, `${before} kB became ${after} kB`);
  assert.equal(await metric(host, 'in_flight'), 0);
});

test('a worker does not grow through thousands of requests on one connection', async (t) => {
  const host = await nginx(t, { before: 'keepalive_requests 1000000;', log: 'crit' });
  const [worker] = host.workers();
  const resident = () => Number(readFileSync(`/proc/${worker}/status`, 'utf8').match(/VmRSS:\s+(\d+)/)[1]);
  const socket = net.connect(host.ports[0], '127.0.0.1');
  t.after(() => socket.destroy());
  const kinds = [['/gif', 'known', 200], ['/', 'known', 200], ['/gif', 'bad', 401], ['/gif?access_token=x', '', 401]];
  let answers = '';
  socket.setEncoding('latin1').on('data', (piece) => (answers += piece));
  const rounds = async (count) => {
    for (let i = 0; i < count; i++) {
      answers = '';
      socket.write(kinds.map(([path, token]) => `GET ${path} HTTP/1.1\r\nHost: a\r\n${token && `Authorization: Bearer ${token}\r\n`}\r\n`).join(''));
      const statuses = () => [...answers.matchAll(/HTTP\/1\.1 (\d+) /g)].map(([, status]) => Number(status));
      await eventually('all are answered', () => statuses().length === kinds.length, { every: 1 });
      if (i === 0) assert.deepEqual(statuses(), kinds.map(([, , status]) => status));
    }
  };
  await rounds(200);
  const before = resident();
  await rounds(1500);
  const after = resident();
  t.diagnostic(`resident: ${before} kB, then ${after} kB`);
  assert.ok(after < before + 512, `${before} kB became ${after} kB`);
});
