// nginx with the Lua module and resty.tokenward, as a process of its own, until the end of a test.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, writeFile } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import { join } from 'node:path';

import { ROOT, close, eventually, folder, listen } from '../../gateway/support/parts.js';

const TARGET = process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target');
export const LIBRARY = join(TARGET, 'shipped', 'libtokenward.so');
const MODULES = '/usr/lib/nginx/modules';

export async function freePort() {
  const server = net.createServer();
  const port = await listen(server);
  await new Promise((resume) => server.close(resume));
  return port;
}

/**
 * Starts a server: `init` runs in each worker, `http` is what the http block holds beside it; PORT and LIBRARY in both are
 * filled in. Gives its url.
 */
export async function startServer(t, { init = '', http: text, workers = 1, port }) {
  assert.ok(existsSync(LIBRARY), `${LIBRARY} is not built`);
  port ??= await freePort();
  const path = await folder((stop) => t.after(stop));
  await chmod(path, 0o777);
  const fill = (lua) => lua.replaceAll('PORT', String(port)).replaceAll('LIBRARY', LIBRARY);
  const modules = ['ndk_http_module.so', 'ngx_http_lua_module.so'].map((name) => `load_module ${MODULES}/${name};`);
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${path}/${name};`);
  await writeFile(
    join(path, 'nginx.conf'),
    `${modules.join('\n')}
daemon off; worker_processes ${workers}; pid ${path}/pid; error_log stderr warn;
events { worker_connections 8192; }
http {
  access_log off;
  keepalive_requests 10000000;
  ${temporary.join(' ')}
  lua_package_path "${ROOT}/bindings/openresty/lib/?.lua;${ROOT}/tests/openresty/?.lua;${ROOT}/examples/openresty/?.lua;;";
  init_by_lua_block { assert(require("resty.tokenward.library").load("${LIBRARY}")) }
  init_worker_by_lua_block { ${fill(init)} }
  ${fill(text)}
}
`,
  );
  const child = spawn('nginx', ['-e', 'stderr', '-p', `${path}/`, '-c', join(path, 'nginx.conf')], {
    stdio: ['ignore', 'ignore', 'pipe'],
    // What is freed is overwritten, so that whoever reads it still is found.
    env: { ...process.env, MALLOC_PERTURB_: '165', PATH: `${process.env.PATH}:/usr/sbin` },
  });
  const server = { url: `http://127.0.0.1:${port}`, port, pid: child.pid, said: '', path };
  child.stderr.setEncoding('utf8').on('data', (more) => (server.said += more));
  const ended = new Promise((resume) => child.once('close', resume));
  server.stop = async (signal = 'SIGTERM') => {
    child.kill(signal);
    return ended;
  };
  t.after(() => server.stop());
  await eventually('nginx listens', () => {
    assert.equal(child.exitCode, null, server.said);
    return new Promise((resume) => {
      const socket = net.connect(port, '127.0.0.1', () => resume(true)).on('error', () => resume(false));
      socket.on('connect', () => socket.destroy());
    });
  });
  return server;
}

/** An introspection endpoint: `answer(token)` gives `{ status, body, delay, headers }`; `calls` are the tokens asked about. */
export async function startEndpoint(t, answer) {
  const calls = [];
  const server = http.createServer(async (incoming, outgoing) => {
    let form = '';
    for await (const chunk of incoming) form += chunk;
    const token = new URLSearchParams(form).get('token');
    calls.push({ token, headers: incoming.headers });
    const { status = 200, body = { active: true, username: 'alice', client_id: 'app' }, delay = 0, end } = answer(token, calls.length);
    setTimeout(() => {
      if (end) return end(incoming.socket, outgoing);
      const text = typeof body === 'string' ? body : JSON.stringify(body);
      outgoing.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) });
      outgoing.end(text);
    }, delay);
  });
  const port = await listen(server);
  t.after(() => close(server));
  return { calls, port };
}

/** One GET; `abort` is called with the request. */
export function fetchOnce(url, token, { begun } = {}) {
  return new Promise((resume) => {
    const outgoing = http.get(url, { agent: false, headers: token ? { Authorization: `Bearer ${token}` } : {} }, (incoming) => {
      let body = '';
      incoming.setEncoding('utf8').on('data', (more) => (body += more));
      incoming.on('end', () => resume({ status: incoming.statusCode, headers: incoming.headers, body }));
    });
    outgoing.on('error', (error) => resume({ error }));
    begun?.(outgoing);
  });
}
