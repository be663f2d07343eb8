// An authorization server that does to a call whatever a scenario says, byte by byte, and otherwise tells the truth.

import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';

import { freePort, listen, secrets } from '../../gateway/support/parts.js';

export const AUTHORIZATION = 'Basic Z2F0ZXdheTpmYXVsdHMtczNjcjN0';
secrets.add(AUTHORIZATION.slice(6));

/** An answer's bytes; `head` and `body` of it apart. */
export function answer(body, { status = '200 OK', type = 'application/json', headers = [] } = {}) {
  const bytes = Buffer.from(body);
  const lines = [`HTTP/1.1 ${status}`, `Content-Type: ${type}`, ...headers];
  if (!headers.some((line) => /^(content-length|transfer-encoding):/i.test(line))) lines.push(`Content-Length: ${bytes.length}`);
  return { head: Buffer.from(`${lines.join('\r\n')}\r\n\r\n`), body: bytes };
}

export class Authority {
  /** What is done to a call, `({ socket, token, nth, honest })`: `nth` is its number on its connection, `honest` the true answer. */
  fault = null;
  /** Seconds that a token is good for. */
  lifetime = 3_600;
  /** Calls since the beginning, `{ token, nth }`. */
  calls = [];
  #tokens = new Map();
  #sockets = new Set();
  #server;
  #context;
  #count = 0;

  static async start({ context } = {}) {
    const authority = new Authority();
    authority.port = await freePort();
    authority.#context = context;
    await authority.accept();
    return authority;
  }

  get url() {
    return `${this.#context ? 'https://localhost' : 'http://127.0.0.1'}:${this.port}/introspect`;
  }

  /** A token that is good, and says whose it is. */
  issue(username = 'alice', more = {}) {
    const token = this.unknown();
    const exp = Math.floor(Date.now() / 1000) + this.lifetime;
    this.#tokens.set(token, { active: true, username, client_id: 'app', scope: 'read', exp, ...more });
    return token;
  }

  /** A token that nobody has issued. */
  unknown() {
    const token = `token-${process.pid}-${(this.#count += 1)}-${Math.random().toString(36).slice(2)}`;
    secrets.add(token);
    return token;
  }

  revoke(token) {
    this.#tokens.delete(token);
  }

  /** What is true of a token now: its claims, or `undefined`. */
  truth(token) {
    const found = this.#tokens.get(token);
    return found && found.exp > Date.now() / 1000 ? found : undefined;
  }

  honest(token) {
    return answer(JSON.stringify(this.truth(token) ?? { active: false }));
  }

  /** Listens, at the same port as before. */
  async accept() {
    if (this.#server) return;
    const serve = (socket) => this.#serve(socket);
    // Half of a connection may outlive the other: what is to be closed is closed by the scenario.
    this.#server = this.#context
      ? tls.createServer({ ...this.#context, ALPNProtocols: ['http/1.1'] }, serve)
      : net.createServer({ noDelay: true }, serve);
    this.#server.on('tlsClientError', () => {});
    if (this.#context) this.#server.on('connection', (socket) => this.#keep(socket));
    await listen(this.#server, this.port);
  }

  /** Ends every connection, and listens no more. */
  async refuse() {
    const server = this.#server;
    this.#server = undefined;
    if (server) {
      server.close();
      this.cut();
    }
  }

  /** Ends every connection. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** The certificate that connections from now on see. */
  certificate(context) {
    this.#context = context;
    this.#server.setSecureContext(context);
    this.cut();
  }

  heal() {
    this.fault = null;
  }

  #keep(socket) {
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => this.#sockets.delete(socket));
  }

  async #serve(socket) {
    this.#keep(socket);
    let text = '';
    let nth = 0;
    socket.setEncoding('latin1');
    try {
      for await (const piece of socket) {
        text += piece;
        for (;;) {
          const end = text.indexOf('\r\n\r\n');
          if (end < 0) break;
          const head = text.slice(0, end);
          const length = Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0);
          if (text.length < end + 4 + length) break;
          const form = text.slice(end + 4, end + 4 + length);
          text = text.slice(end + 4 + length);
          const token = new URLSearchParams(form).get('token');
          nth += 1;
          this.calls.push({ token, nth, head });
          const honest = this.honest(token);
          if (this.fault) this.fault({ socket, token, nth, honest });
          else socket.write(Buffer.concat([honest.head, honest.body]));
        }
      }
    } catch {
      // The other side went away.
    }
  }
}

/** Writes until the other side has had enough; gives how many bytes it took. */
export async function pour(socket, piece, total) {
  let sent = 0;
  while (sent < total && !socket.destroyed) {
    sent += piece.length;
    if (!socket.write(piece)) await Promise.race([once(socket, 'drain'), once(socket, 'close')]).catch(() => {});
  }
  return sent;
}

/** Writes a byte a second, until the other side has had enough. */
export function drip(socket, bytes) {
  let at = 0;
  const timer = setInterval(() => {
    if (socket.destroyed || at >= bytes.length) clearInterval(timer);
    else socket.write(bytes.subarray(at, ++at));
  }, 1_000);
  timer.unref();
  socket.once('close', () => clearInterval(timer));
  socket.write(bytes.subarray(at, ++at));
}
