// The gateway, or another host, as a process of its own, started as every host is: examples/HOST/run.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { request } from './client.js';
import { HOST } from './hosts.js';
import { ROOT, eventually, folder, secrets } from './parts.js';

const RUN = join(ROOT, 'examples', HOST, 'run');

// A test process that breaks off leaves nothing behind.
const running = new Set();
process.once('exit', () => running.forEach((child) => child.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

/**
 * Starts a gateway that ends with the test, and gives it once it is ready.
 *
 * `config` is an object (a configuration with the member `consumers`) or the text of a file; `select` goes behind the
 * file's name (`#route=...`); `admin: true` gives `/metrics` at `gateway.admin`; `environment` is added to this
 * process's; `listen` is where it listens, by default at a free port.
 */
export async function startGateway(
  t,
  { config, upstream, select = '', admin = false, environment = {}, listen = '127.0.0.1:0' },
) {
  const file = join(await folder((stop) => t.after(stop)), typeof config === 'string' ? 'kong.yaml' : 'config.json');
  const write = (content) => writeFile(file, typeof content === 'string' ? content : JSON.stringify(content));
  await write(config);
  const gateway = run(
    ['--config', file + select, '--listen', listen, '--upstream', upstream.url].concat(
      admin ? ['--admin', '127.0.0.1:0'] : [],
    ),
    environment,
  );
  t.after(() => gateway.stop());
  gateway.file = file;
  gateway.write = write;
  // The first start may have to build the gateway.
  await eventually('the gateway is ready', () => gateway.isOver() || /^ready /m.test(gateway.stdout), {
    within: 300_000,
    every: 5,
  });
  const ready = /^ready (http:\/\/127\.0\.0\.1:\d+)$/m.exec(gateway.stdout);
  assert.ok(ready, `the gateway did not start:\n${gateway.stderr}`);
  gateway.url = ready[1];
  if (admin) {
    const address = /(http:\S+)\/metrics/;
    await gateway.says(address);
    gateway.admin = address.exec(gateway.stderr)[1];
    gateway.metric = async (name) => {
      const { body } = await request(gateway.admin, { path: '/metrics' });
      return Number(
        body
          .split('\n')
          .find((line) => line.startsWith(`tokenward_${name} `))
          ?.split(' ')[1],
      );
    };
  }
  return gateway;
}

/** Starts the program with these arguments, ready or not. */
export function run(parameters, environment = {}) {
  const child = spawn(RUN, parameters, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...environment } });
  const gateway = { stdout: '', stderr: '', pid: child.pid, wasKilled: false };
  for (const name of ['stdout', 'stderr'])
    child[name].setEncoding('utf8').on('data', (text) => (gateway[name] += text));
  const ended = new Promise((resume, fail) => {
    child.once('error', fail);
    child.once('close', (status, signal) => resume({ status, signal }));
  });
  gateway.ended = ended;
  gateway.isOver = () => child.exitCode !== null || child.signalCode !== null;
  gateway.signal = (name) => child.kill(name);

  /** Waits for a line on standard error, which comes by a way of its own. */
  gateway.says = (pattern) => eventually(`${pattern} is said`, () => pattern.test(gateway.stderr));

  /** Ends it if it runs, and looks at everything it has said. */
  gateway.stop = async () => {
    child.kill('SIGTERM');
    const patience = setTimeout(() => child.kill('SIGKILL'), 10_000);
    const end = await ended;
    clearTimeout(patience);
    const said = gateway.stdout + gateway.stderr;
    if (!gateway.wasKilled) assert.equal(end.signal, null, `the gateway did not end by itself:\n${said}`);
    assert.doesNotMatch(said, /panicked/);
    for (const secret of secrets)
      assert.ok(!said.includes(secret), `a token or secret is in the gateway's output:\n${said}`);
    return end;
  };
  running.add(child);
  child.once('exit', () => running.delete(child));
  return gateway;
}
