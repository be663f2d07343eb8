'use strict';
// The call to the introspection endpoint: what goes out, what comes back, and how it failed. Never a redirect followed, never
// more read than `limits.reply_bytes`, never longer than the time that is left.

const http = require('node:http');
const https = require('node:https');

/** How a call failed, in the core's words. */
class Failed extends Error {
  constructor(failure) {
    super(failure);
    this.failure = failure;
  }
}

const DNS = new Set(['ENOTFOUND', 'EAI_AGAIN', 'EAI_FAIL', 'EAI_NODATA', 'EAI_NONAME', 'ENODATA', 'ESERVFAIL']);
const CONNECT = new Set([
  'ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'EHOSTDOWN', 'EADDRNOTAVAIL', 'ENETDOWN', 'EACCES', 'EPERM', 'ENOENT',
  'UND_ERR_CONNECT_TIMEOUT', 'ETIMEDOUT', 'EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM',
]);
const TLS = /^(?:ERR_(?:TLS|SSL|OSSL)|CERT_|CRL_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH|EPROTO$)/;
const PROTOCOL = /^(?:HPE_|ERR_INVALID|UND_ERR_(?:INVALID_ARG|HEADERS_OVERFLOW|NOT_SUPPORTED|RESPONSE_STATUS|REQ_CONTENT|RES_CONTENT))/;

/** What went wrong before the head of an answer was there, from an error and its causes. */
function failureOf(error) {
  for (let one = error, depth = 0; one != null && depth < 8; one = one.cause ?? one.errors?.[0], depth += 1) {
    if (one instanceof Failed) return one.failure;
    const code = typeof one.code === 'string' ? one.code : '';
    if (DNS.has(code)) return 'dns';
    if (CONNECT.has(code)) return 'connect';
    if (TLS.test(code)) return 'tls';
    if (PROTOCOL.test(code) || one.name === 'HTTPParserError') return 'protocol';
    if (code === 'UND_ERR_HEADERS_TIMEOUT') return 'timed_out';
  }
  return 'closed';
}

/** Makes a call by `send`, within its time. Gives `{ status, headers, body }` or throws a `Failed`, or the signal's reason. */
async function call(exchange, send, limit, signal) {
  const controller = new AbortController();
  let isLate = false;
  // A body that hangs heeds no signal in some transports: the time is kept here as well.
  let give;
  const stopped = new Promise((_, fail) => (give = fail));
  stopped.catch(() => {});
  const stop = () => {
    controller.abort(signal.reason);
    give(signal.reason);
  };
  const late = () => {
    isLate = true;
    controller.abort();
    give(new Failed('timed_out'));
  };
  const timer = setTimeout(late, Math.min(Math.max(exchange.timeLeft, 0), 0x7fffffff));
  signal?.addEventListener('abort', stop, { once: true });
  try {
    signal?.throwIfAborted();
    const { method, url, headers, body, isRetry } = exchange;
    const sent = send({ method, url, headers, body, isRetry, signal: controller.signal, limit });
    return await Promise.race([sent, stopped]);
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    if (isLate) throw new Failed('timed_out');
    throw error instanceof Failed ? error : new Failed(failureOf(error));
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', stop);
    // What is left of a call that failed ends here.
    controller.abort();
  }
}

/** Reads a body to its end, and no further than `limit`. */
async function read(chunks, limit) {
  const parts = [];
  let length = 0;
  try {
    for await (const chunk of chunks) {
      if (!(chunk instanceof Uint8Array)) throw new Failed('protocol');
      length += chunk.byteLength;
      if (length > limit) throw new Failed('too_long');
      parts.push(chunk);
    }
  } catch (error) {
    throw error instanceof Failed ? error : new Failed('cut_off');
  }
  return Buffer.concat(parts, length);
}

const isTooLong = (header, limit) => /^[0-9]+$/.test(header ?? '') && Number(header) > limit;

/** By a function like the built-in `fetch`. */
const byFetch = (fetch) => async ({ method, url, headers, body, signal, limit }) => {
  const response = await fetch(url, { method, headers, body, signal, redirect: 'manual' });
  // A redirect that a function hides is one all the same.
  if (response.type === 'opaqueredirect') return { status: 302, headers: [], body: Buffer.alloc(0) };
  if (response.redirected) throw new Failed('protocol');
  if (isTooLong(response.headers.get('content-length'), limit)) throw new Failed('too_long');
  const read_ = response.body ? await read(response.body, limit) : Buffer.alloc(0);
  return { status: response.status, headers: [...response.headers], body: read_ };
};

/** By an undici dispatcher: an `Agent`, `Pool`, `ProxyAgent`, ... of whichever version. */
const byDispatcher = (dispatcher) => async ({ method, url, headers, body, signal, limit }) => {
  const { origin, pathname, search } = new URL(url);
  const response = await dispatcher.request({ origin, path: pathname + search, method, headers: headers.flat(), body, signal });
  if (isTooLong(response.headers['content-length'], limit)) {
    response.body.on('error', () => {}).destroy();
    throw new Failed('too_long');
  }
  return { status: response.statusCode, headers: response.headers, body: await read(response.body, limit) };
};

/** By Node's own client, for certificate authorities of the configuration, and where a connection has to be a new one. */
function byAgent({ keepalive, roots }) {
  const agents = (options) => ({ 'https:': new https.Agent({ ...options, ca: roots }), 'http:': new http.Agent(options) });
  const fresh = agents({ keepAlive: false });
  const kept = keepalive > 0 ? agents({ keepAlive: true, timeout: keepalive }) : fresh;
  return ({ method, url, headers, body, isRetry, signal, limit }) =>
    new Promise((resolve, fail) => {
      const isTls = url.startsWith('https:');
      const lines = [...headers, ['Content-Length', String(Buffer.byteLength(body))]];
      const request = (isTls ? https : http).request(url, {
        method,
        // Flat, since an object keeps no two lines of one name.
        headers: ['Host', new URL(url).host, ...lines.flat()],
        agent: (isRetry ? fresh : kept)[isTls ? 'https:' : 'http:'],
        signal,
      });
      // The agent's idle time is no limit on an answer.
      request.on('socket', (socket) => socket.setTimeout(0));
      request.once('error', (error) => fail(error));
      request.once('response', (response) => {
        request.on('error', () => {});
        if (isTooLong(response.headers['content-length'], limit)) {
          request.destroy();
          fail(new Failed('too_long'));
          return;
        }
        const { statusCode: status, rawHeaders } = response;
        const pairs = rawHeaders.flatMap((name, i) => (i % 2 === 0 ? [[name, rawHeaders[i + 1]]] : []));
        read(response, limit).then((bytes) => resolve({ status, headers: pairs, body: bytes }), (error) => {
          request.destroy();
          fail(error);
        });
      });
      request.end(body);
    });
}

/** How calls are made, by the options of an introspector and what its configuration says. */
function transport({ fetch, dispatcher }, endpoint) {
  if (fetch !== undefined) return byFetch(fetch);
  if (dispatcher !== undefined) return byDispatcher(dispatcher);
  if (endpoint.roots) return byAgent(endpoint);
  // Looked up at each call: whoever replaces the global one means it.
  const usual = byFetch((url, init) => globalThis.fetch(url, init));
  const single = byAgent({ keepalive: 0 });
  const own = ownDispatcher();
  const isOwn = () => globalThis.fetch === FETCH && own !== undefined && globalThis[DISPATCHER] === own;
  // `fetch` can be given no new connection, and may have many that are dead alike.
  return (outgoing) => (outgoing.isRetry && isOwn() ? single : usual)(outgoing);
}

const FETCH = globalThis.fetch;
/** Where the built-in `fetch` and every undici keep what makes the connections: a proxy, it may be, that somebody has set. */
const DISPATCHER = Symbol.for('undici.globalDispatcher.1');
let own;

/** The built-in's own one, if it is known to be that. */
function ownDispatcher() {
  if (globalThis[DISPATCHER] === undefined) {
    // Node loads its undici with the first use of any part of it.
    void globalThis.Response;
    own = globalThis[DISPATCHER];
  }
  return own;
}

module.exports = { Failed, call, failureOf, transport };
