// An upstream that answers with what reached it.

import { createHash } from 'node:crypto';
import http from 'node:http';

import { close, listen } from './parts.js';

/**
 * Starts one. Every request is kept in `requests` from its head on (`received` counts the bytes of its body), and is
 * answered with `{ method, url, headers, length, sha256, body }`, `body` being text and left out beyond 64 KiB.
 *
 * `/cacheable...` is answered with `Cache-Control: public, max-age=60`; `/held...` only once `release()` was called. A
 * client that wants to change to another protocol is kept in `upgrades`, may, and gets back every byte. Connections are kept for `idle`
 * milliseconds.
 */
export async function startUpstream({ idle = 1_000 } = {}) {
  const upstream = { requests: [], upgrades: [] };
  const held = new Promise((resume) => (upstream.release = resume));
  const server = http.createServer(async (incoming, answer) => {
    const { method, url } = incoming;
    const headers = pairs(incoming.rawHeaders);
    const seen = { method, url, headers, received: 0 };
    upstream.requests.push(seen);
    const chunks = [];
    for await (const chunk of incoming) {
      seen.received += chunk.length;
      chunks.push(chunk);
    }
    seen.trailers = incoming.rawTrailers;
    if (url.startsWith('/held')) await held;
    const body = Buffer.concat(chunks);
    const sha256 = createHash('sha256').update(body).digest('hex');
    if (url.startsWith('/cacheable')) answer.setHeader('Cache-Control', 'public, max-age=60');
    answer.setHeader('Content-Type', 'application/json');
    const text = body.length <= 65_536 ? body.toString() : undefined;
    answer.end(JSON.stringify({ method, url, headers, length: body.length, sha256, body: text }));
  });
  server.on('upgrade', (incoming, socket) => {
    upstream.upgrades.push({ url: incoming.url, headers: pairs(incoming.rawHeaders) });
    socket.on('error', () => {});
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ${incoming.headers.upgrade}\r\n\r\n`,
    );
    socket.pipe(socket);
  });
  server.keepAliveTimeout = idle;
  upstream.url = `http://127.0.0.1:${await listen(server)}`;
  upstream.stop = () => close(server);
  return upstream;
}

function pairs(flat) {
  return flat.flatMap((name, i) => (i % 2 === 0 ? [[name, flat[i + 1]]] : []));
}

/** All values that reached the upstream under a name, in any case. */
export function values(seen, name) {
  return seen.headers.filter(([one]) => one.toLowerCase() === name.toLowerCase()).map(([, value]) => value);
}

/**
 * The headers that only the gateway may set, lines of one name as an array. The names are found by their meaning: what
 * a backend reads that folds `_` and `.` to `-`, as CGI and WSGI do.
 */
export function managed(seen) {
  const found = {};
  for (const [name, value] of seen.headers) {
    if (/^x[-_.](consumer[-_.]|credential[-_.]|anonymous[-_.]consumer$)/i.test(name)) {
      (found[name.toLowerCase()] ??= []).push(value);
    }
  }
  return Object.fromEntries(Object.entries(found).map(([name, all]) => [name, all.length === 1 ? all[0] : all]));
}
