// A real nginx with the module, for one test.

import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';

import { ROOT, eventually, folder, listen, secrets } from '../../gateway/support/parts.js';

const TARGET = process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target');
export const MODULE = process.env.TOKENWARD_NGINX_MODULE ?? join(TARGET, 'nginx/ngx_http_tokenward_module.so');
assert.ok(existsSync(MODULE), `there is no ${MODULE}: make -C bindings/nginx module`);
// Another nginx than the system's, with the module built for it; its sources are in TOKENWARD_NGINX_SRC.
const NGINX = process.env.TOKENWARD_NGINX ?? ['/usr/sbin/nginx', '/usr/local/sbin/nginx'].find(existsSync) ?? 'nginx';

const running = new Set();
process.once('exit', () => running.forEach((child) => child.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

// Below the ports that the system gives to whoever asks for any: none of them is taken between now and nginx's start.
let next = 12_000 + ((process.pid * 37) % 18_000);

/** A port that is free now. */
export async function freePort() {
  for (;;) {
    const server = net.createServer();
    try {
      const port = await listen(server, next++);
      await new Promise((resume) => server.close(resume));
      return port;
    } catch (error) {
      if (error.code !== 'EADDRINUSE') throw error;
    }
  }
}

/** The whole configuration file of an nginx that keeps everything it writes in `path`. */
export function configuration(path, http, { workers = 1, main = '', log = 'info' } = {}) {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${path}/${name};`);
  return `
load_module ${MODULE};
${process.getuid() === 0 ? 'user root;' : ''}
daemon off; pid ${path}/pid; error_log stderr ${log}; worker_shutdown_timeout 8s;
${workers === 0 ? 'master_process off;' : `worker_processes ${workers};`}
${main}
events { worker_connections 4096; }
http {
access_log off; ${temporary.join(' ')}
${http}
}
`;
}

/** `nginx -t` of an http block: `{ status, stderr }`. `files` are names and texts, which `$DIR` in the block is the folder of. */
export async function check(t, http, files = {}, environment = {}) {
  const path = await folder((stop) => t.after(stop));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text);
  writeFileSync(join(path, 'nginx.conf'), configuration(path, http.replaceAll('$DIR', path)));
  const { status, stderr } = spawnSync(NGINX, ['-t', '-e', 'stderr', '-p', path, '-c', join(path, 'nginx.conf')], {
    encoding: 'utf8',
    env: { ...process.env, ...environment },
  });
  return { status, stderr, path };
}

/**
 * Starts one that ends with the test. `ports` says how many addresses there are: `$PORT0`, `$PORT1` ... in the block are
 * their ports, and `urls` gives them. `secret: true` says that no token or secret may be in what it says.
 */
export async function start(t, http, { files = {}, ports = 1, environment = {}, wrapper = [], secret = true, ...options } = {}) {
  let clean;
  const path = await folder((stop) => (clean = stop));
  const numbers = [];
  for (let i = 0; i < ports; i++) numbers.push(await freePort());
  const fill = (text) => text.replaceAll('$DIR', path).replace(/\$PORT(\d)/g, (_, i) => numbers[i]);
  const write = (name, text) => writeFileSync(join(path, name), fill(text));
  for (const [name, text] of Object.entries(files)) write(name, text);
  write('nginx.conf', configuration(path, http, options));
  const command = [...wrapper, NGINX, '-e', 'stderr', '-p', path, '-c', join(path, 'nginx.conf')];
  const child = spawn('setpriv', ['--pdeathsig', 'TERM', ...command], {
    stdio: ['ignore', 'inherit', 'pipe'],
    env: { ...process.env, ...environment },
  });
  const nginx = { stderr: '', path, pid: child.pid, ports: numbers, urls: numbers.map((port) => `http://127.0.0.1:${port}`) };
  [nginx.url] = nginx.urls;
  running.add(child);
  child.once('exit', () => running.delete(child));
  child.stderr.setEncoding('utf8').on('data', (text) => (nginx.stderr += text));
  const ended = new Promise((resume, fail) => {
    child.once('error', fail);
    child.once('close', (status, signal) => resume({ status, signal }));
  });
  nginx.ended = ended;
  nginx.write = write;
  nginx.configure = (text, more = options) => write('nginx.conf', configuration(path, text, more));
  nginx.signal = (name) => child.kill(name);
  nginx.says = (pattern) => eventually(`${pattern} is said`, () => pattern.test(nginx.stderr));
  /** Processes of the workers. */
  nginx.workers = () =>
    execFileSync('ps', ['-o', 'pid=', '--ppid', String(child.pid)], { encoding: 'utf8' }).trim().split(/\s+/).map(Number);
  nginx.stop = async () => {
    child.kill(options.workers === 0 ? 'SIGTERM' : 'SIGQUIT');
    const patience = setTimeout(() => child.kill('SIGKILL'), 30_000);
    const end = await ended;
    clearTimeout(patience);
    assert.equal(end.signal, null, `nginx did not end by itself:\n${nginx.stderr}`);
    assert.doesNotMatch(nginx.stderr, /panicked|exited on signal|\[emerg\]/, nginx.stderr);
    if (!options.alerts) assert.doesNotMatch(nginx.stderr, /\[alert\]/, nginx.stderr);
    if (secret) {
      for (const one of secrets) assert.ok(!nginx.stderr.includes(one), `a token or secret is in the log:\n${nginx.stderr}`);
    }
    return end;
  };
  // The folder outlives nginx.
  t.after(() => nginx.stop().finally(clean));
  const over = () => child.exitCode !== null || child.signalCode !== null;
  const accepts = (port) =>
    new Promise((resume) => {
      const socket = net.connect(port, '127.0.0.1', () => resume(socket.destroy() && true));
      socket.on('error', () => resume(false));
    });
  await eventually('nginx accepts', async () => over() || (await accepts(numbers[0])), {
    within: 60_000,
    every: 5,
  });
  assert.ok(!over(), nginx.stderr);
  return nginx;
}
