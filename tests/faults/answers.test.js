// What an authorization server may answer in place of an answer.

import assert from 'node:assert/strict';
import { gzipSync } from 'node:zlib';

import { answer, pour } from './support/authority.js';
import { memory, serving } from './support/processes.js';
import { scenario, scene, sleep } from './support/scene.js';

const here = scene();

const MiB = 1_048_576;
const MALFORMED = { status: 502, reason: 'reply_malformed' };
// Who hands over what was read leaves it to the core to see that it is too much.
const TOO_LONG = ['failure=too_long', 'status=200'];
const UNAVAILABLE = { status: 503, reason: 'endpoint_unavailable' };
const whole = ({ head, body }) => Buffer.concat([head, body]);
const replying = (make) => () => (here.as.fault = ({ socket, honest }) => socket.write(whole(make(honest))));

scenario('the answer is no HTTP', () =>
  here.endure({
    ...MALFORMED,
    detail: 'failure=protocol',
    begin: () => (here.as.fault = ({ socket }) => socket.end('220 mail.example ESMTP ready\r\n'.repeat(20))),
    calls: 1,
  }),
);

scenario('the answer is a page in HTML', () =>
  here.endure({
    ...MALFORMED,
    detail: 'status=200',
    begin: replying(() => answer('<html>"active":true</html>', { type: 'text/html' })),
    calls: 1,
  }),
);

scenario('the answer is half of a JSON document', () =>
  here.endure({
    ...MALFORMED,
    detail: 'status=200',
    begin: replying(({ body }) => answer(body.subarray(0, body.length - 1))),
    calls: 1,
  }),
);

/** A long answer costs little memory, and most of it is not even read. */
async function long(pouring, detail) {
  const poured = [];
  const before = memory(serving(here.host.pid)[0], 'VmRSS');
  const cell = await here.endure({
    ...MALFORMED,
    detail,
    begin: () => {
      here.as.fault = (call) => poured.push(pouring(call));
    },
    end: async () => {
      for (const bytes of await Promise.all(poured)) assert.ok(bytes < 32 * MiB, `${bytes} bytes were taken`);
    },
    calls: 1,
  });
  const grown = memory(serving(here.host.pid)[0], 'VmRSS') - before;
  assert.ok(grown < 48 * MiB, `the process has grown by ${grown} bytes`);
  return cell;
}

const piece = Buffer.alloc(65_536, ' ');

scenario('the answer is 100 MiB long, and says so', () =>
  long(({ socket, honest }) => {
    socket.write(answer('', { headers: [`Content-Length: ${100 * MiB}`] }).head);
    socket.write(honest.body);
    return pour(socket, piece, 100 * MiB);
  }, TOO_LONG),
);

scenario('the answer is 100 MiB long, in chunks', () =>
  long(({ socket, honest }) => {
    socket.write(answer('', { headers: ['Transfer-Encoding: chunked'] }).head);
    socket.write(`${honest.body.length.toString(16)}\r\n${honest.body}\r\n`);
    return pour(socket, Buffer.concat([Buffer.from('10000\r\n'), piece, Buffer.from('\r\n')]), 100 * MiB);
  }, TOO_LONG),
);

scenario('the headers are 100 MiB long', () =>
  long(({ socket }) => {
    socket.write('HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n');
    return pour(socket, Buffer.from(`X-Padding: ${'x'.repeat(1_000)}\r\n`.repeat(64)), 100 * MiB);
  }, 'failure=protocol'),
);

const coded = (text) => answer(gzipSync(text), { headers: ['Content-Encoding: gzip'] });

scenario('the body is coded with gzip', () =>
  here.endure({ ...MALFORMED, detail: 'status=200', begin: replying(({ body }) => coded(body)), calls: 1 }),
);

scenario('the body is 100 MiB once it is decoded', () => {
  const bomb = whole(coded(`{"active":true}${' '.repeat(100 * MiB)}`));
  return long(({ socket }) => {
    socket.write(bomb);
    return bomb.length;
  }, TOO_LONG);
});

scenario('the status is 500, and then 200 again', () =>
  here.endure({
    ...UNAVAILABLE,
    detail: 'status=500',
    begin: replying(({ body }) => answer(body, { status: '500 Internal Server Error' })),
    calls: 1,
  }),
);

const later = (status, value) => replying(() => answer('{}', { status, headers: [`Retry-After: ${value}`] }));

scenario('the status is 429, with `Retry-After: 17`', () =>
  here.endure({ ...UNAVAILABLE, detail: 'status=429', begin: later('429 Too Many Requests', '17'), retryAfter: '17', calls: 1 }),
);

scenario('the status is 503, with a date in `Retry-After`', () =>
  here.endure({
    ...UNAVAILABLE,
    detail: 'status=503',
    begin: later('503 Service Unavailable', 'Fri, 31 Dec 2100 23:59:59 GMT'),
    calls: 1,
  }),
);

scenario('the status is 429, with `Retry-After: 86400`', () =>
  here.endure({ ...UNAVAILABLE, detail: 'status=429', begin: later('429 Too Many Requests', '86400'), retryAfter: '3600', calls: 1 }),
);

scenario('the status is 401', () =>
  here.endure({
    status: 502,
    reason: 'endpoint_refused',
    detail: 'status=401',
    begin: replying(() => answer('{"error":"invalid_client"}', { status: '401 Unauthorized', headers: ['WWW-Authenticate: Basic'] })),
    calls: 1,
  }),
);

scenario('the status is 302, to where the answer is yes', async () => {
  let followed = 0;
  const yes = here.as.honest(here.as.issue());
  const cell = await here.endure({
    status: 502,
    reason: 'endpoint_refused',
    detail: 'status=302',
    begin: () => {
      here.as.fault = ({ socket, token }) => {
        if (token === null) followed += 1;
        const found = answer('', { status: '302 Found', headers: [`Location: ${here.as.url}/yes`] });
        socket.write(whole(token === null ? yes : found));
      };
    },
    calls: 1,
  });
  await sleep(100);
  assert.equal(followed, 0);
  return cell;
});
