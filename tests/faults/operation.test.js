// What is done to a host while it works.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { setTimeout as later } from 'node:timers/promises';

import { bearer } from '../gateway/support/client.js';
import { eventually, freePort } from '../gateway/support/parts.js';
import { assertRefused } from '../gateway/support/scene.js';
import { managed } from '../gateway/support/upstream.js';
import { pour } from './support/authority.js';
import { descriptors, limited, memory, processes, serving } from './support/processes.js';
import { CONSUMERS, HOST, Late, inTime, scenario, scene, sleep } from './support/scene.js';

const MiB = 1_048_576;
const here = scene({ listen: async () => `127.0.0.1:${await freePort()}` });

/** A request over connections that are kept. */
function send(agent, token) {
  const headers = token ? Object.fromEntries([bearer(token)]) : {};
  return new Promise((resume, fail) => {
    const request = http.get(here.host.url, { agent, headers, timeout: 10_000 }, (answer) => {
      let body = '';
      answer.setEncoding('utf8').on('data', (text) => (body += text));
      answer.on('end', () => resume({ status: answer.statusCode, headers: answer.headers, body, json: () => JSON.parse(body) }));
    });
    request.on('timeout', () => request.destroy(new Error('no answer within 10 s')));
    // A host may end a connection that nothing came over for some seconds, which there were none of.
    request.on('error', (error) => fail(error.code === 'ECONNRESET' ? new Late('a kept connection was gone') : error));
  });
}

/** Clients that ask and ask: about a token that is known, new ones, bad ones. `end` gives how often each thing came of it. */
function load(t, clients = 6) {
  const seen = { errors: 0 };
  let going = true;
  t.after(() => (going = false));
  const loops = Array.from({ length: clients }, async (_, i) => {
    for (let n = i; going; n++) {
      const kind = ['known', 'known', 'fresh', 'unknown'][n % 4];
      const token = { known: () => here.known, fresh: () => here.as.issue(), unknown: () => here.as.unknown() }[kind]();
      try {
        const { status, body } = await here.ask(token);
        assert.equal(status, kind === 'unknown' ? 401 : 200, `${kind}: ${body}`);
        seen[kind] = (seen[kind] ?? 0) + 1;
      } catch (error) {
        // Nobody was there to be asked, or not any more.
        if (!['ECONNREFUSED', 'ECONNRESET', 'EPIPE'].includes(error.code)) throw error;
        seen.errors += 1;
        await later(5);
      }
    }
  });
  const all = Promise.all(loops);
  all.catch(() => {});
  return {
    seen,
    end: async () => {
      going = false;
      await all;
      return seen;
    },
  };
}

const consumerOf = async (token) => managed((await here.ask(token)).json())['x-consumer-id'];

scenario(
  'the configuration is reloaded under load',
  async (t) => {
    const clients = load(t);
    for (let i = 1; i <= 5; i++) {
      await sleep(100);
      const consumers = CONSUMERS.map((one) => ({ ...one, id: `${one.id}-${i}` }));
      await here.host.write(i === 3 ? '{"ttl": -1}' : { ...here.config, consumers });
      here.host.signal('SIGHUP');
      if (i === 3) await here.host.says(/`ttl`/);
      else await eventually('the new consumers are there', async () => (await consumerOf(here.known)) === `2-${i}`);
    }
    const seen = await clients.end();
    assert.equal(seen.errors, 0);
    assert.ok(seen.known > 5 && seen.fresh > 2 && seen.unknown > 2, JSON.stringify(seen));
    await here.host.write(here.config);
    here.host.signal('SIGHUP');
    await eventually('the first consumers are there', async () => (await consumerOf(here.known)) === '2');
    await here.isWell();
    return 'as without';
  },
  { openresty: 'it is configured once, when it starts' },
);

scenario('it is killed under load, and started again', async (t) => {
  const revoked = here.as.issue('bob');
  assert.equal((await here.ask(revoked)).status, 200);
  const clients = load(t);
  await sleep(200);
  const all = processes(here.host.pid);
  for (const pid of all) process.kill(pid, 'SIGKILL');
  await here.host.ended;
  here.host.wasKilled = true;
  here.as.revoke(revoked);
  await sleep(200);
  assert.ok(clients.seen.errors > 0);
  await here.start(new URL(here.host.url).host);
  const { errors } = clients.seen;
  await here.isWell();
  assertRefused(await here.ask(revoked), 'invalid');
  await sleep(200);
  assert.equal((await clients.end()).errors, errors);
  return 'no connection, then as before';
});

const ONE_PROCESS = 'it is one process';
scenario(
  'its worker is killed under load',
  async (t) => {
    const clients = load(t);
    await sleep(200);
    const [worker] = serving(here.host.pid);
    process.kill(worker, 'SIGKILL');
    await eventually('there is another one', () => serving(here.host.pid).some((pid) => pid !== worker));
    await here.isWell();
    const { errors } = clients.seen;
    await sleep(200);
    assert.equal((await clients.end()).errors, errors);
    return 'connections that were open are cut, then as before';
  },
  { gateway: ONE_PROCESS, python: ONE_PROCESS, node: ONE_PROCESS },
);

/** With every number for a file taken that the host may use, by clients of `agent` and by others. */
async function exhausted(agent, idle, { pid }) {
  const all = (token) => Promise.all(Array.from({ length: 8 }, () => send(agent, token?.())));
  for (const { status } of await all()) assert.equal(status, 401);
  here.as.cut();
  await sleep(300);
  const most = Number(/^Max open files\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))[1]);
  await eventually('every number below the limit is taken', () => {
    if (descriptors(pid) >= most) return true;
    idle.push(net.connect(new URL(here.host.url).port, '127.0.0.1').on('error', () => {}));
    return false;
  });
  const from = here.host.stderr.length;
  const tokens = [];
  // A kept connection that turns out to be closed leaves its place to one question, which takes its time.
  here.as.fault = ({ socket, honest }) => setTimeout(() => socket.write(Buffer.concat([honest.head, honest.body])), 300);
  const answers = await all(() => tokens[tokens.push(here.as.issue()) - 1]);
  const refused = answers.filter(({ status }) => status !== 200);
  assert.ok(refused.length > 0);
  for (const answer of refused) assertRefused(answer, 'unavailable');
  await here.says(from, 'endpoint_unreachable', 'failure=connect');
  return tokens;
}

scenario('it runs out of file descriptors', async () => {
  const host = await limited(here.host, 'nofile', (pid) => descriptors(pid, 25));
  // Clients that have a connection already, and others that take every file that is left.
  const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
  const idle = [];
  const leave = () => [agent, ...idle].forEach((one) => one.destroy());
  try {
    await here.isWell();
    const tokens = await exhausted(agent, idle, host);
    here.as.heal();
    // Somebody new has to wait, or is turned away.
    const late = here.ask(here.known).catch(({ code }) => ({ code }));
    await sleep(300);
    leave();
    // A host that could take no connection tries again after a while: nginx after 0.5 s, Python's event loop after 1 s.
    await eventually('somebody is let in', () => here.ask(here.known).catch(({ code }) => assert.equal(code, 'ECONNRESET')), {
      within: 2_000,
    });
    await here.isWell(...tokens);
    const { status, code } = await late;
    assert.ok(status === 200 || code === 'ECONNRESET', `${status} ${code}`);
    assert.deepEqual(serving(here.host.pid), [host.pid]);
  } finally {
    here.as.heal();
    leave();
    host.lift();
  }
  return '503 connect';
});

/** What a host may take beside what it has, in bytes: threads and arenas reserve much more than they use. */
const ROOM = { gateway: 384, nginx: 96, openresty: 96, python: 768, node: 768 }[HOST] * MiB;

scenario('its memory is limited', async (t) => {
  const { pid, lift } = await limited(here.host, 'as', (pid) => memory(pid, 'VmSize') + ROOM);
  t.after(lift);
  await here.isWell();
  const began = memory(pid, 'VmRSS');
  const piece = Buffer.alloc(65_536, ' ');
  here.as.fault = ({ socket }) => {
    socket.write('HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n');
    pour(socket, Buffer.concat([Buffer.from('10000\r\n'), piece, Buffer.from('\r\n')]), 100 * MiB);
  };
  // 16 answers of 100 MiB at once, and long tokens that nobody has issued.
  for (const answer of await Promise.all(Array.from({ length: 16 }, () => here.ask(here.as.issue())))) {
    assert.ok([502, 503].includes(answer.status), answer.body);
    assertRefused(answer, answer.status === 502 ? 'unusable' : 'unavailable');
    inTime(answer, { timeout: true, atLeast: false });
  }
  here.as.heal();
  for (let i = 0; i < 10; i++) {
    const junk = Array.from({ length: 50 }, () => here.ask(`${here.as.unknown()}${'x'.repeat(8_000)}`));
    for (const answer of await Promise.all(junk)) assertRefused(answer, 'invalid');
  }
  await here.isWell();
  assert.deepEqual(serving(here.host.pid), [pid]);
  const grown = memory(pid, 'VmRSS') - began;
  assert.ok(grown < 160 * MiB, `it has grown by ${grown} bytes`);
  return '502 too_long, and as before';
});
