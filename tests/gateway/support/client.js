// A client that sends exactly what it is told: header names keep their spelling, and their order.

import http from 'node:http';
import net from 'node:net';

/**
 * Sends a request. `headers` is a list of pairs; `Host` and, unless given, `Connection: close` are added. `body` is
 * text, bytes, or a function that is handed the request to write to (and has to end it).
 *
 * Gives `{ status, headers, body, json() }`; lines of one name are joined with `, `.
 */
export function request(base, { method = 'GET', path = '/', headers = [], body } = {}) {
  const url = new URL(base);
  const has = (name) => headers.some(([one]) => one.toLowerCase() === name);
  const lines = [['Host', url.host], ...headers];
  if (!has('connection')) lines.push(['Connection', 'close']);
  if (typeof body === 'function') lines.push(['Transfer-Encoding', 'chunked']);
  else if (body !== undefined) lines.push(['Content-Length', String(Buffer.byteLength(body))]);
  return new Promise((resume, fail) => {
    const sent = http.request(
      { host: url.hostname, port: url.port, method, path, headers: lines.flat(), agent: false, timeout: 20_000 },
      (answer) => {
        const chunks = [];
        answer.on('data', (chunk) => chunks.push(chunk));
        answer.on('error', fail);
        answer.on('end', () => {
          const text = Buffer.concat(chunks).toString();
          resume({ status: answer.statusCode, headers: answer.headers, body: text, json: () => JSON.parse(text) });
        });
      },
    );
    sent.on('error', fail);
    sent.on('timeout', () => sent.destroy(new Error('no answer within 20 s')));
    if (typeof body === 'function') Promise.resolve(body(sent)).catch(fail);
    else sent.end(body);
  });
}

export const bearer = (token) => ['Authorization', `Bearer ${token}`];

/**
 * Sends bytes over a connection of their own and gives everything that comes back until the other side closes. `on` is
 * a list of pairs, each a pattern and what is done once it is in what came: bytes to send, or `null` to end; with
 * `half`, this side says at once that it sends nothing more.
 */
export function exchange(base, bytes, { on = [], half = false } = {}) {
  const url = new URL(base);
  const steps = [...on];
  return new Promise((resume, fail) => {
    let text = '';
    const socket = net.connect(Number(url.port), url.hostname, () => (half ? socket.end(bytes) : socket.write(bytes)));
    socket.setEncoding('latin1');
    socket.setTimeout(20_000, () => socket.destroy(new Error(`the connection was not closed within 20 s: ${text}`)));
    socket.on('data', (chunk) => {
      text += chunk;
      while (steps[0]?.[0].test(text)) {
        const [, next] = steps.shift();
        if (next === null) socket.end();
        else socket.write(next);
      }
    });
    // Bytes that the other side has not read when it closes make a reset of it.
    socket.on('error', (error) => (text ? resume(text) : fail(error)));
    socket.on('end', () => resume(text));
  });
}
