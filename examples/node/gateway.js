// @ts-check
'use strict';
// A streaming gateway: requests that Tokenward allows go on to one upstream, edited. Bodies are not kept, but where a token may
// be in one.
//
//   node gateway.js --config FILE --listen 127.0.0.1:8080 --upstream http://127.0.0.1:9000 [--admin 127.0.0.1:9100]
//
// `kill -HUP` reads FILE again and keeps the cache; SIGTERM ends it after the requests under way.

const http = require('node:http');
const { parseArgs } = require('node:util');
const { ConfigError, Introspector } = require('tokenward');
const { tokenward } = require('tokenward/express');
const { forwardHeaders, guardUpgrade } = require('tokenward/proxy');

/** How long requests under way may take to end once the gateway was told to stop, in milliseconds. */
const GRACE = 5_000;

/** @param {string} text */
const say = (text) => process.stderr.write(`${text}\n`);

const { values: options } = parseArgs({
  options: {
    config: { type: 'string' },
    listen: { type: 'string' },
    upstream: { type: 'string' },
    admin: { type: 'string' },
  },
});
if (!options.config || !options.listen || !options.upstream) {
  say('usage: --config FILE --listen HOST:PORT --upstream http://HOST:PORT [--admin HOST:PORT]');
  process.exit(2);
}
const file = options.config;
const upstream = new URL(options.upstream);
// Servers close idle connections without a word, some after 5 s: one that is about to be closed is better not taken.
const agent = new http.Agent({ keepAlive: true, timeout: 4_000 });

/** @param {unknown} error */
function problems(error) {
  const lines = error instanceof ConfigError ? error.message.split('\n') : [String(error)];
  return lines.map((line) => `error: ${file}: ${line}`).join('\n');
}

/** @type {Introspector} */
let introspector;
try {
  introspector = Introspector.fromFile(file, { log: ({ level, text }) => say(`${level}: ${text}`) });
} catch (error) {
  say(problems(error));
  process.exit(2);
}

process.on('SIGHUP', () => {
  try {
    introspector.replaceFile(file);
  } catch (error) {
    say(`${problems(error)}\nerror: ${file}: not reloaded, the configuration from before stays`);
  }
});

/**
 * An answer of the gateway's own, in the form of Tokenward's.
 * @param {http.ServerResponse} res
 * @param {number} status
 * @param {string} description
 */
function answer(res, status, description) {
  if (res.headersSent) {
    res.destroy();
    return;
  }
  const error = status < 500 ? 'invalid_request' : 'server_error';
  res.writeHead(status, {
    'Content-Type': 'application/json; charset=utf-8',
    'Cache-Control': 'no-store',
    // Where the next request would begin is not sure.
    ...(status < 500 || status === 501 ? { Connection: 'close' } : {}),
  });
  res.end(JSON.stringify({ error, error_description: description }));
}

/**
 * Requests that this gateway does not pass on, whoever sends them.
 * @param {http.IncomingMessage} req
 * @returns {[number, string] | undefined}
 */
function unsupported({ rawHeaders, url = '', headers }) {
  let hosts = 0;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i].toLowerCase();
    const words = rawHeaders[i + 1].toLowerCase().split(',').map((word) => word.trim());
    if (name === 'host') hosts += 1;
    if (name === 'connection' && words.some((word) => word === 'host' || word.startsWith('content-'))) {
      return [400, 'Connection lists a field that is not of the connection'];
    }
    if (name === 'transfer-encoding' && rawHeaders[i + 1].trim().toLowerCase() !== 'chunked') {
      return [501, 'The transfer coding is not supported'];
    }
  }
  if (hosts > 1) return [400, 'The request has not exactly one Host'];
  if (headers['transfer-encoding'] && headers['content-length']) return [400, 'The request has two lengths'];
  if (!url.startsWith('/') && url !== '*' && !/^https?:\/\/[^/?]/i.test(url)) {
    return [400, "The request target is not one of this gateway's"];
  }
  return undefined;
}

/**
 * What the upstream is asked for. The authority of a target in absolute form takes the place of `Host` (RFC 9112 §3.2.2).
 * @param {http.IncomingMessage} req
 */
function outgoing(req) {
  const allow = req.tokenward;
  if (!allow) throw new Error('a request without a decision is not passed on');
  let path = req.url ?? '/';
  let host = req.headers.host;
  const absolute = /^https?:\/\/(?:[^/?@]*@)?([^/?]+)(.*)$/i.exec(path);
  if (absolute) {
    host = absolute[1];
    path = absolute[2].startsWith('/') ? absolute[2] : `/${absolute[2]}`;
  }
  const lines = forwardHeaders(req, allow).filter(([name]) => name.toLowerCase() !== 'host');
  return {
    host: upstream.hostname,
    port: upstream.port || 80,
    method: req.method,
    path,
    headers: [...(host === undefined ? [] : ['Host', host]), ...lines.flat()],
  };
}

const HOP_BY_HOP = new Set(['connection', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade']);

/** @param {http.IncomingMessage} response */
function endToEnd({ rawHeaders, headers }) {
  const listed = new Set((headers.connection ?? '').split(',').map((name) => name.trim().toLowerCase()));
  const lines = [];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i].toLowerCase();
    if (!HOP_BY_HOP.has(name) && !listed.has(name)) lines.push(rawHeaders[i], rawHeaders[i + 1]);
  }
  return lines;
}

/**
 * @param {http.IncomingMessage} req
 * @param {http.ServerResponse} res
 */
function forward(req, res) {
  const target = outgoing(req);
  // A body in chunks goes on in chunks; trailers are not passed on, either way.
  if (req.headers['transfer-encoding'] !== undefined) target.headers.push('Transfer-Encoding', 'chunked');
  else if (req.headers['content-length'] === undefined && req.method !== 'GET' && req.method !== 'HEAD') {
    target.headers.push('Content-Length', '0');
  }
  const call = http.request({ ...target, agent });
  call.on('error', () => answer(res, 502, 'The upstream gave no answer'));
  call.on('response', (response) => {
    response.on('error', () => res.destroy());
    response.on('aborted', () => res.destroy());
    res.writeHead(response.statusCode ?? 502, response.statusMessage, endToEnd(response));
    response.pipe(res);
  });
  // Whoever goes away takes the call along.
  res.on('close', () => call.destroy());
  req.pipe(call);
}

const guard = tokenward(introspector);

/**
 * @param {http.IncomingMessage} req
 * @param {http.ServerResponse} res
 */
function handle(req, res, next = () => forward(req, res)) {
  const refused = unsupported(req);
  if (refused) {
    answer(res, ...refused);
    return;
  }
  guard(req, res, () => {
    try {
      next();
    } catch {
      answer(res, 500, 'An unexpected error occurred');
    }
  });
}

const server = http.createServer({ maxHeaderSize: 65_536 }, handle);

// A client that asks before it sends a body is told to go on once it is allowed to, or when the body is needed to decide.
server.on('checkContinue', (req, res) => {
  if (introspector.needsBody(req)) {
    res.writeContinue();
    handle(req, res);
    return;
  }
  // One that is refused sends none, and its connection ends here.
  res.setHeader('Connection', 'close');
  handle(req, res, () => {
    res.removeHeader('Connection');
    res.writeContinue();
    forward(req, res);
  });
});

const upgrade = guardUpgrade(introspector, (req, socket, head) => {
  const target = outgoing(req);
  target.headers.push('Connection', 'Upgrade', 'Upgrade', 'websocket');
  const call = http.request(target);
  socket.on('error', () => call.destroy());
  socket.on('close', () => call.destroy());
  call.on('error', () => socket.destroy());
  call.on('response', (response) => {
    const lines = endToEnd(response);
    socket.write(`HTTP/1.1 ${response.statusCode} ${response.statusMessage}\r\n${text(lines)}Connection: close\r\n\r\n`);
    response.pipe(socket);
  });
  call.on('upgrade', (response, other, first) => {
    other.on('error', () => socket.destroy());
    other.on('close', () => socket.destroy());
    socket.on('close', () => other.destroy());
    const lines = [...endToEnd(response), 'Connection', 'Upgrade', 'Upgrade', 'websocket'];
    socket.write(`HTTP/1.1 101 Switching Protocols\r\n${text(lines)}\r\n`);
    if (first.length > 0) socket.write(first);
    if (head.length > 0) other.write(head);
    socket.pipe(other).pipe(socket);
  });
  call.end();
});

/** @param {string[]} lines */
const text = (lines) => lines.map((part, i) => part + (i % 2 === 0 ? ': ' : '\r\n')).join('');

// Of upgrades only WebSocket is passed on: with HTTP/2, say, a client could send further requests past every decision.
server.on('upgrade', (req, socket, head) => {
  const refused = unsupported(req);
  const isWebSocket = req.method === 'GET' && (req.headers.upgrade ?? '').toLowerCase() === 'websocket';
  if (refused || !isWebSocket) {
    const [status, description] = refused ?? [501, 'Of upgrades only WebSocket is passed on'];
    socket.end(`HTTP/1.1 ${status} ${http.STATUS_CODES[status]}\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n${description}\n`);
    return;
  }
  upgrade(req, socket, head);
});

server.on('connect', (req, socket) => socket.end('HTTP/1.1 501 Not Implemented\r\nConnection: close\r\n\r\n'));

/**
 * @param {string} text
 * @returns {[number, string]}
 */
function address(text) {
  const at = text.lastIndexOf(':');
  return [Number(text.slice(at + 1)), text.slice(0, at).replace(/^\[|\]$/g, '')];
}

/** @param {http.Server} server */
function urlOf(server) {
  const { address, port, family } = /** @type {import('node:net').AddressInfo} */ (server.address());
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
}

/** @type {http.Server | undefined} */
let admin;
if (options.admin) {
  admin = http.createServer((req, res) => {
    if (req.url !== '/metrics') {
      res.writeHead(404).end();
      return;
    }
    res.writeHead(200, { 'Content-Type': 'text/plain; version=0.0.4' }).end(introspector.metrics());
  });
  const one = admin;
  one.listen(...address(options.admin), () => say(`info: metrics at ${urlOf(one)}/metrics`));
}

server.on('error', (error) => {
  say(`error: ${error.message}`);
  process.exit(1);
});
server.listen(...address(options.listen), 4096, () => process.stdout.write(`ready ${urlOf(server)}\n`));

let isStopping = false;
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    if (isStopping) process.exit(1);
    isStopping = true;
    admin?.close();
    admin?.closeAllConnections();
    server.close(() => process.exit(0));
    server.closeIdleConnections();
    setTimeout(() => process.exit(0), GRACE).unref();
  });
}
