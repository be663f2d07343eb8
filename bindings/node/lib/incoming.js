'use strict';
// What the adapters share: which requests are decided about, how, and what becomes of them. Whatever fails in here denies.

const { stripTrailers } = require('./edits.js');
const { Introspector, NEEDS } = require('./introspector.js');

/** How long a client may take to send a body that has to be searched for a token, in milliseconds. */
const BODY_TIME = 30_000;

/** A path that means the same to everybody: nothing encoded, no empty or dot segment. No other is ever excluded. */
const PLAIN = /^(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._~!$&'()*+,=:@-]+)*\/?$/;

/** One of the client's own failures while its body was read. */
class BodyError extends Error {
  constructor(status, description) {
    super(description);
    this.status = status;
  }
}

class Guard {
  #introspector;
  #port;
  #policy;
  #policies;
  #excluded;

  constructor(introspector, { policy, exclude = [], onDeny } = {}) {
    if (!(introspector instanceof Introspector)) throw new TypeError('`introspector` is no Introspector');
    if (onDeny !== undefined && typeof onDeny !== 'function') throw new TypeError('`onDeny` is no function');
    this.#introspector = introspector;
    this.#port = Introspector.portOf(introspector);
    this.onDeny = onDeny;
    if (typeof policy === 'function') this.#policies = policy;
    else this.#policy = this.#rest(policy);
    this.#excluded = [].concat(exclude).map(exclusion);
  }

  /** What the addon is told beside the request; undefined where there is nothing. */
  #rest(policy) {
    if (policy === undefined) return undefined;
    // A policy that nobody holds gives its number back, and another one would get it.
    return { policy: Introspector.policyNumber(this.#introspector, policy), held: policy };
  }

  get introspector() {
    return this.#introspector;
  }

  isExcluded(target, req) {
    const excluded = this.#excluded;
    if (excluded.length === 0) return false;
    const at = target.indexOf('?');
    const path = at < 0 ? target : target.slice(0, at);
    for (let i = 0; i < excluded.length; i += 1) if (excluded[i](path, req)) return true;
    return false;
  }

  /** The decision if there is one at once, or the step that stands in its way. */
  begin(req, target, policy) {
    return this.#port.begin(req.method, target, req.rawHeaders, this.#policyOf(req, policy), true);
  }

  #policyOf(req, policy) {
    if (policy !== undefined) return this.#rest(policy);
    return this.#policies === undefined ? this.#policy : this.#rest(this.#policies(req));
  }

  /** Goes on with a step that is no decision, and reads the body where that is needed. Aborted by `gone`. */
  async proceed(step, req, target, policy, gone) {
    if (step === NEEDS) {
      // Before chunks become a length: behind that nobody would look for trailers.
      const strip = stripTrailers(req);
      const body = await readBody(req, this.#introspector.bodyBytes);
      strip();
      const rest = { ...this.#policyOf(req, policy), body: body.bytes };
      step = this.#port.begin(req.method, target, req.rawHeaders, rest);
      const decision = await Introspector.settle(this.#introspector, step, req.method, gone);
      if (decision.allowed) body.giveBack(decision.body ?? body.bytes, decision.body !== null);
      return decision;
    }
    return Introspector.settle(this.#introspector, step, req.method, gone);
  }

  internal(req) {
    return this.#introspector.internal(req.method === 'HEAD');
  }
}

/** A test of paths from what the user has given. */
function exclusion(given) {
  if (typeof given === 'function') return (path, req) => given(path, req) === true;
  if (given instanceof RegExp) {
    if (given.global || given.sticky) throw new TypeError('`exclude`: an expression must be without the flags g and y');
    return (path) => PLAIN.test(path) && given.test(path);
  }
  if (typeof given !== 'string' || !given.startsWith('/')) {
    throw new TypeError('`exclude` takes paths that begin with /, expressions and functions');
  }
  if (given.endsWith('/*')) {
    const prefix = given.slice(0, -1);
    return (path) => path.startsWith(prefix) && PLAIN.test(path);
  }
  if (given.includes('*')) throw new TypeError('`exclude`: a path may have * as its last segment only');
  return (path) => path === given;
}

/**
 * Reads the body up to `limit` bytes and one more, and lets those who come after read it, or another in its place, as if nothing
 * had happened.
 */
async function readBody(req, limit) {
  const nothing = { bytes: Buffer.alloc(0), giveBack() {} };
  // Read by somebody before us: without its bytes there is no token in it.
  if (req.readableEnded || req.readableDidRead) {
    return Buffer.isBuffer(req.rawBody) ? { bytes: req.rawBody, giveBack() {} } : { bytes: undefined, giveBack() {} };
  }
  // An empty body is not read: nobody could be told of its end again.
  if (req.headers['content-length'] === '0') return nothing;
  const chunks = [];
  let length = 0;
  await new Promise((resolve, fail) => {
    const onReadable = () => {
      while (req.readableLength > 0 && length <= limit) {
        const chunk = req.read();
        if (chunk === null) break;
        chunks.push(chunk);
        length += chunk.length;
      }
      if (length > limit || (req.complete && req.readableLength === 0)) done();
    };
    const done = (error) => {
      clearTimeout(timer);
      req.off('readable', onReadable);
      req.off('error', onError);
      req.off('close', onClose);
      if (error === undefined) {
        // At once: from the next turn on the stream has ended.
        const bytes = Buffer.concat(chunks, length);
        if (length > 0) req.unshift(bytes);
        resolve();
      } else {
        fail(error);
      }
    };
    const onError = () => done(new BodyError(400, 'The request body could not be read'));
    const onClose = onError;
    const timer = setTimeout(() => done(new BodyError(408, 'The request body did not come in time')), BODY_TIME);
    req.on('readable', onReadable);
    req.on('error', onError);
    req.on('close', onClose);
    onReadable();
  });
  const bytes = Buffer.concat(chunks, length);
  return {
    bytes,
    giveBack(other, isOther) {
      if (!isOther) return;
      // What was put back is taken again, and the other put in its place: within one turn.
      req.read(length);
      if (other.length > 0) req.unshift(other);
      const { headers, rawHeaders } = req;
      // All of it is known now: a body that came in chunks is announced by its length.
      delete headers['transfer-encoding'];
      for (let i = 0; i < rawHeaders.length; i += 2) {
        if (rawHeaders[i].toLowerCase() === 'transfer-encoding') rawHeaders[i] = 'Content-Length';
      }
      const value = String(other.length);
      headers['content-length'] = value;
      for (let i = 0; i < rawHeaders.length; i += 2) {
        if (rawHeaders[i].toLowerCase() === 'content-length') rawHeaders[i + 1] = value;
      }
    },
  };
}

/** The refusal that a broken body gets: no decision, in the form of one. */
function bodyRefusal(error) {
  return {
    kind: 'deny',
    allowed: false,
    reason: 'request_malformed',
    number: 1101,
    status: error.status,
    headers: [
      ['Content-Type', 'application/json; charset=utf-8'],
      ['Cache-Control', 'no-store'],
      ['Connection', 'close'],
    ],
    body: `{"error":"invalid_request","error_description":"${error.message}"}`,
    source: 'none',
  };
}

/** Answers with a refusal. */
function refuse(deny, req, res) {
  if (res.headersSent) {
    res.destroy();
    return;
  }
  res.statusCode = deny.status;
  for (const [name, value] of deny.headers) if (!(name === 'Connection' && req.httpVersionMajor === 2)) res.setHeader(name, value);
  if (deny.body === null) {
    res.end();
  } else {
    res.setHeader('Content-Length', Buffer.byteLength(deny.body));
    res.end(deny.body);
  }
}

module.exports = { BodyError, Guard, bodyRefusal, refuse };
