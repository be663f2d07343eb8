// What may become of a connection to the authorization server.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import net from 'node:net';

import { eventually } from '../gateway/support/parts.js';
import { assertRefused } from '../gateway/support/scene.js';
import { drip } from './support/authority.js';
import { TIMEOUT, inTime, scenario, scene, sleep } from './support/scene.js';

const PLACES = 24;
const here = scene({ fields: { limits: { concurrent_introspections: PLACES } } });

const TIMED_OUT = { status: 503, reason: 'endpoint_timed_out', detail: 'failure=timed_out', within: 'timeout' };
const UNREACHABLE = { status: 503, reason: 'endpoint_unreachable' };
const MALFORMED = { status: 502, reason: 'reply_malformed' };
const fault = (does) => () => (here.as.fault = does);
const part = (bytes) => bytes.subarray(0, bytes.length >> 1);

scenario('connections are refused', () =>
  here.endure({ ...UNREACHABLE, detail: 'failure=connect', begin: () => here.as.refuse().then(() => sleep(200)), end: () => here.as.accept() }),
);

scenario('connections are not accepted, nor refused', async () => {
  // A process that listens and does nothing else; the places before its door are taken by others.
  const program = `
    const server = require('node:net').createServer();
    server.listen({ host: '127.0.0.1', port: ${here.as.port}, backlog: 1 }, () => {
      require('node:fs').writeSync(1, 'listens');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    });`;
  let child;
  const waiting = [];
  const cell = await here.endure({
    ...TIMED_OUT,
    begin: async () => {
      await here.as.refuse();
      child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
      await new Promise((resume) => child.stdout.once('data', resume));
      for (let i = 0; i < 8; i++) waiting.push(net.connect(here.as.port, '127.0.0.1').on('error', () => {}));
      await eventually('the queue is full', () => waiting.some((socket) => socket.connecting));
      await sleep(100);
    },
    end: async () => {
      for (const socket of waiting) socket.destroy();
      child.kill('SIGKILL');
      await new Promise((resume) => child.once('close', resume));
      await here.as.accept();
    },
  });
  return cell;
});

scenario('it hangs before the headers', () => here.endure({ ...TIMED_OUT, begin: fault(() => {}), calls: 1 }));

scenario('it hangs in the middle of the headers', () =>
  here.endure({ ...TIMED_OUT, begin: fault(({ socket, honest }) => socket.write(part(honest.head))), calls: 1 }),
);

scenario('it hangs in the middle of the body', () =>
  here.endure({
    ...TIMED_OUT,
    begin: fault(({ socket, honest }) => socket.write(Buffer.concat([honest.head, part(honest.body)]))),
    calls: 1,
  }),
);

scenario('the headers come a byte a second', () =>
  here.endure({ ...TIMED_OUT, begin: fault(({ socket, honest }) => drip(socket, honest.head)), calls: 1 }),
);

scenario('the body comes a byte a second', () =>
  here.endure({
    ...TIMED_OUT,
    begin: fault(({ socket, honest }) => {
      socket.write(honest.head);
      drip(socket, honest.body);
    }),
    calls: 1,
  }),
);

scenario('it closes late, and hangs when it is asked again', () => {
  const asked = new Set();
  return here.endure({
    ...TIMED_OUT,
    begin: fault(({ socket, token }) => {
      if (!asked.has(token)) setTimeout(() => socket.end(), TIMEOUT * 0.8);
      asked.add(token);
    }),
    calls: 2,
  });
});

scenario('the connection is reset before the answer', () =>
  here.endure({ ...UNREACHABLE, detail: 'failure=closed', begin: fault(({ socket }) => socket.resetAndDestroy()), calls: 2 }),
);

/** Bytes, and a reset once they have arrived. */
const reset = (socket, bytes) => {
  socket.write(bytes);
  setTimeout(() => socket.resetAndDestroy(), 100);
};

scenario('the connection is reset in the middle of the headers', () =>
  here.endure({
    ...UNREACHABLE,
    detail: 'failure=closed',
    begin: fault(({ socket, honest }) => reset(socket, part(honest.head))),
    calls: 2,
  }),
);

scenario('the connection is reset in the middle of the body', () =>
  here.endure({
    ...MALFORMED,
    detail: 'failure=cut_off',
    begin: fault(({ socket, honest }) => reset(socket, Buffer.concat([honest.head, part(honest.body)]))),
    calls: 1,
  }),
);

scenario('it closes after half of a body that looks whole', () =>
  here.endure({
    ...MALFORMED,
    detail: 'failure=cut_off',
    begin: fault(({ socket, honest }) => {
      const length = honest.body.length;
      const head = honest.head.toString().replace(`Content-Length: ${length}`, `Content-Length: ${2 * length}`);
      socket.end(Buffer.concat([Buffer.from(head), honest.body]));
    }),
    calls: 1,
  }),
);

/** Four connections that are idle, all of which are gone once they are used again: as behind a firewall that has forgotten them. */
async function stale(close) {
  const idle = 4;
  here.as.fault = ({ socket, honest }) => setTimeout(() => socket.write(Buffer.concat([honest.head, honest.body])), 300);
  const opened = await Promise.all(Array.from({ length: idle }, () => here.ask(here.as.issue())));
  assert.deepEqual(opened.map(({ status }) => status), Array(idle).fill(200));
  let closed = 0;
  here.as.fault = ({ socket, nth, honest }) => {
    if (nth === 1) {
      socket.write(Buffer.concat([honest.head, honest.body]));
    } else {
      closed += 1;
      close(socket);
    }
  };
  const from = here.host.stderr.length;
  for (let i = 0; i < 2 * idle; i++) {
    const answer = await here.ask(here.as.issue());
    assert.equal(answer.status, 200, `request ${i}: ${answer.body} ${here.host.stderr.slice(from)}`);
    inTime(answer);
  }
  here.as.heal();
  await here.isWell();
  assert.ok(closed > 0, 'no connection was used again');
  return '200';
}

scenario('idle connections are closed just before they are used again', () => stale((socket) => socket.end()));
scenario('idle connections are reset just before they are used again', () => stale((socket) => socket.resetAndDestroy()));

scenario('more bytes than the answer has are left on the connection', async () => {
  // They would be the answer to the next question on it: yes, whatever that is about.
  const yes = here.as.honest(here.as.issue());
  here.as.fault = ({ socket, honest }) => {
    socket.write(Buffer.concat([honest.head, honest.body, yes.head, yes.body]));
  };
  for (let i = 0; i < 5; i++) {
    const answer = await here.ask(here.as.issue());
    assert.equal(answer.status, 200, answer.body);
    assertRefused(await here.ask(here.as.unknown()), 'invalid');
  }
  here.as.heal();
  await here.isWell();
  return '200; 401 for a bad token';
});

scenario('it hangs while there are more questions than places', async () => {
  await sleep(1_050);
  here.as.fault = () => {};
  const from = here.host.stderr.length;
  const tokens = Array.from({ length: PLACES + 8 }, () => here.as.issue());
  const crowd = tokens.map((token) => here.ask(token));
  // Whoever joins a question needs no place.
  await sleep(200);
  crowd.push(...Array.from({ length: 20 }, () => here.ask(tokens[0])));
  const answers = await Promise.all(crowd);
  for (const answer of answers) {
    assertRefused(answer, 'unavailable');
    inTime(answer, { timeout: true, atLeast: false });
  }
  assert.ok(answers.filter(({ lasted }) => lasted < TIMEOUT - 50).length <= 8);
  await here.says(from, 'overloaded');
  await here.says(from, 'endpoint_timed_out', 'failure=timed_out');
  await eventually('nobody is waited for', async () => (await here.host.metric('in_flight')) === 0);
  here.as.heal();
  await here.isWell(...tokens);
  return '503 overloaded, timed_out';
});
