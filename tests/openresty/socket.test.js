// Calls over cosockets: how an answer is framed, what is no answer, and which connections are kept.

import assert from 'node:assert/strict';
import net from 'node:net';
import { test } from 'node:test';
import http2 from 'node:http2';

import { eventually, listen } from '../gateway/support/parts.js';
import { fetchOnce, startServer } from './support/server.js';

const GATE = (port) => `
  package.loaded.gate = assert(require("resty.tokenward").new({
    config = { introspection_url = "http://127.0.0.1:${port}/introspect?a=b", authorization_value = "Basic eA==", timeout = 1000,
      limits = { reply_bytes = 100 } },
    consumers = { { id = "1", username = "alice" } }, transport = "socket",
  }))`;
const PROTECTED = 'location / { access_by_lua_block { require("gate"):access() } content_by_lua_block { ngx.say(ngx.var.http_x_consumer_id) } }';
const YES = '{"active":true,"username":"alice"}';

/** A server that gives these bytes to every request, and closes with `end`. */
async function raw(t) {
  const endpoint = { connections: 0, requests: [], bytes: '', end: false };
  const sockets = new Set();
  const server = net.createServer((socket) => {
    endpoint.connections += 1;
    sockets.add(socket.on('error', () => {}));
    socket.setEncoding('latin1').on('data', (text) => {
      endpoint.requests.push(text);
      socket[endpoint.end ? 'end' : 'write'](endpoint.bytes);
    });
  });
  endpoint.port = await listen(server);
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return endpoint;
}

const start = (t, port, protocol = '') =>
  startServer(t, { init: GATE(port), http: `server { listen 127.0.0.1:PORT ${protocol}; ${PROTECTED} }` });

const JSON_TYPE = 'Content-Type: application/json\r\n';
const OK = `HTTP/1.1 200 OK\r\n${JSON_TYPE}`;
const sized = (body, more = '') => `${OK}${more}Content-Length: ${body.length}\r\n\r\n${body}`;
const chunked = (...parts) =>
  `${OK}Transfer-Encoding: chunked\r\n\r\n${[...parts, ''].map((part) => `${part.length.toString(16)}\r\n${part}`).join('\r\n')}\r\n`;
const EARLY = 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n';

test('answers are read as they are framed, and what is no answer is refused for what it is', async (t) => {
  const endpoint = await raw(t);
  const server = await start(t, endpoint.port);
  let count = 0;
  for (const [bytes, status, failure, end] of [
    [sized(YES), 200],
    [chunked(YES.slice(0, 7), YES.slice(7)), 200],
    [chunked(YES).replace(/\r\n$/, 'Trailer: x\r\n\r\n'), 200],
    [chunked(YES).replace('22\r\n', '22;a="b"\r\n'), 200],
    [`${OK}\r\n${YES}`, 200, undefined, true],
    [EARLY + sized(YES), 200],
    [sized(YES, `X-Padding: ${'x'.repeat(60_000)}\r\n`), 200],
    [sized(YES).replace('1.1', '1.0'), 200, undefined, true],
    [sized('{"active":false}'), 401],
    ['HTTP/1.1 204 No Content\r\n\r\n', 502, 'status=204'],
    [sized(YES, 'Content-Length: 3\r\n'), 502, 'failure=protocol'],
    [sized(YES).replace('Content-Length: ', 'Content-Length: +'), 502, 'failure=protocol'],
    [sized(YES, 'Transfer-Encoding: gzip, chunked\r\n'), 502, 'failure=protocol'],
    [sized(YES, ' folded: x\r\n'), 502, 'failure=protocol'],
    [sized(YES, 'no colon\r\n'), 502, 'failure=protocol'],
    [sized(YES, `X-Padding: ${'x'.repeat(70_000)}\r\n`), 502, 'failure=protocol'],
    [sized(YES).replace('200', '99'), 502, 'failure=protocol'],
    [sized(YES).replace('200 OK', '101 Switching'), 502, 'failure=protocol'],
    ['HTTP/2 200\r\n\r\n', 502, 'failure=protocol'],
    [chunked(YES).replace('22\r\n', '-22\r\n'), 502, 'failure=protocol'],
    [chunked(YES).replace('22\r\n', '2200000000000022\r\n'), 502, 'failure=protocol'],
    [chunked(YES).replace('22\r\n', '21\r\n'), 502, 'failure=protocol'],
    [chunked(YES).replace(/0\r\n\r\n$/, ''), 502, 'failure=cut_off', true],
    [sized(YES).slice(0, -1), 502, 'failure=cut_off', true],
    [sized(YES.padEnd(101)), 502, 'failure=too_long'],
    [chunked(YES, ' '.repeat(70)), 502, 'failure=too_long'],
    [`${OK}\r\n${YES.padEnd(101)}`, 502, 'failure=too_long', true],
    [OK, 503, 'failure=closed', true],
    ['', 503, 'failure=closed', true],
    ['HTTP', 503, 'failure=timed_out'],
  ]) {
    Object.assign(endpoint, { bytes, end: end ?? false });
    const from = server.said.length;
    const answer = await fetchOnce(`${server.url}/`, `token-${(count += 1)}`);
    assert.equal(answer.status, status, `${bytes}\n${answer.body}\n${server.said.slice(from)}`);
    if (status === 200) assert.equal(answer.body, '1\n');
    if (failure === undefined) continue;
    await eventually(`${failure} for ${bytes.slice(0, 200)}`, () => server.said.slice(from).includes(failure), { within: 2_000 });
    // One line a second for each reason.
    await new Promise((resume) => setTimeout(resume, 1_050));
  }
  const [request] = endpoint.requests;
  assert.match(request, /^POST \/introspect\?a=b HTTP\/1\.1\r\nHost: 127\.0\.0\.1:\d+\r\nContent-Length: \d+\r\n/);
  assert.match(request, /\r\nAuthorization: Basic eA==\r\n/);
  assert.match(request, /\r\n\r\ntoken=token-1$/);
});

test('a connection is kept after a whole answer, and only then', async (t) => {
  const endpoint = await raw(t);
  const server = await start(t, endpoint.port);
  let count = 0;
  const opened = async (bytes) => {
    Object.assign(endpoint, { bytes, connections: 0 });
    for (let i = 0; i < 3; i++) assert.equal((await fetchOnce(`${server.url}/`, `token-${(count += 1)}`)).status, 200);
    return endpoint.connections;
  };
  assert.equal(await opened(sized(YES)), 1);
  assert.equal(await opened(chunked(YES)), 0);
  // The first one is kept from before.
  assert.equal(await opened(sized(YES, 'Connection: close\r\n')), 2);
  assert.equal(await opened(sized(YES, 'Connection: x,  Close\r\n')), 3);
  assert.equal(await opened(sized(YES).replace('1.1', '1.0')), 3);
  assert.equal(await opened(sized(YES) + sized(YES)), 3);
});

test('it works in requests of HTTP/2', async (t) => {
  const endpoint = await raw(t);
  endpoint.bytes = sized(YES);
  const server = await start(t, endpoint.port, 'http2');
  const client = http2.connect(server.url);
  t.after(() => client.close());
  const status = await new Promise((resume, fail) => {
    const stream = client.request({ ':path': '/', authorization: 'Bearer abc' });
    stream.on('response', (headers) => resume(headers[':status'])).on('error', fail);
    stream.resume();
  });
  assert.equal(status, 200);
});
