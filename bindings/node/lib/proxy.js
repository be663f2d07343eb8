'use strict';
// For gateways that forward by themselves: http-proxy-middleware, undici, fetch, and WebSockets by whichever.

const { BodyError, Guard, bodyRefusal } = require('./incoming.js');
const { STATUS_CODES } = require('node:http');
const { editRequest, editResponse, makePrivate, stripManaged } = require('./edits.js');
const { forwardHeaders, withLines } = require('./lines.js');
const { NEEDS } = require('./introspector.js');

/**
 * The handlers of `http-proxy-middleware` (its option `on`) behind the middleware of `tokenward/express`: lines of one name stay
 * apart on their way to the upstream, and nothing that came in between changes them. A request without a decision (a path that is
 * excluded) has none of them.
 */
const proxyEvents = () => {
  const edit = (proxyReq, req) => {
    const before = proxyReq.getHeaders();
    const after = withLines(before, req.tokenward);
    for (const name of Object.keys(before)) if (!(name in after)) proxyReq.removeHeader(name);
    for (const [name, value] of Object.entries(after)) if (before[name] !== value) proxyReq.setHeader(name, value);
  };
  const guarded = (proxyReq, req) => {
    try {
      edit(proxyReq, req);
    } catch (error) {
      // What cannot be sent as the decision says is not sent at all.
      proxyReq.destroy(error);
    }
  };
  return { proxyReq: guarded, proxyReqWs: guarded };
};

/**
 * A listener of a server's `upgrade` that lets authenticated upgrades pass to `next(req, socket, head)`, edited, with the decision at
 * `req.tokenward`; others are refused on the socket.
 */
function guardUpgrade(introspector, next, options) {
  const guard = new Guard(introspector, options);
  if (typeof next !== 'function') throw new TypeError('`next` is no function');

  return async function tokenward(req, socket, head) {
    const gone = new AbortController();
    const leave = () => gone.abort();
    let passes = false;
    // Whoever resets a connection that is not handed on yet ends no process.
    const ignore = () => {};
    socket.on('error', ignore);
    socket.once('close', leave);
    try {
      req.tokenward = undefined;
      const target = req.url;
      if (guard.isExcluded(target, req)) {
        stripManaged(req);
        passes = true;
      } else {
        let step = guard.begin(req, target, undefined);
        // An upgrade has no body.
        if (step === NEEDS) throw new BodyError(400, 'An upgrade has no body');
        if (step.kind === 'introspect' || step.kind === 'wait') {
          step = await guard.proceed(step, req, target, undefined, gone.signal);
        }
        if (gone.signal.aborted) return;
        if (step.kind === 'allow') {
          editRequest(req, step);
          req.tokenward = step;
          passes = true;
        } else {
          refuse(guard, step, req, socket);
        }
      }
    } catch (error) {
      if (!gone.signal.aborted) refuse(guard, error instanceof BodyError ? bodyRefusal(error) : guard.internal(req), req, socket);
      return;
    } finally {
      socket.off('close', leave);
    }
    if (passes) {
      socket.off('error', ignore);
      next(req, socket, head);
    }
  };
}

function refuse(guard, deny, req, socket) {
  try {
    const result = guard.onDeny?.(deny, req, socket);
    if (typeof result?.then === 'function') result.then(undefined, () => {});
  } catch {
    // The refusal below is not the function's to prevent.
  }
  if (socket.destroyed || socket.writableEnded) return;
  const body = deny.body ?? '';
  const lines = [
    `HTTP/1.1 ${deny.status} ${STATUS_CODES[deny.status] ?? ''}`,
    ...deny.headers.filter(([name]) => name !== 'Connection').map(([name, value]) => `${name}: ${value}`),
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
  ];
  socket.end(`${lines.join('\r\n')}\r\n\r\n${body}`);
}

/** The lines for an upstream, from a request of Node's or any list of names and values. */
const headersFor = (request, allow, options) => forwardHeaders(Array.isArray(request) ? request : request.rawHeaders, allow, options);

module.exports = {
  editRequest,
  editResponse,
  forwardHeaders: headersFor,
  guardUpgrade,
  makePrivate,
  proxyEvents,
};
