'use strict';
// A plugin for Fastify 5, and what `@fastify/http-proxy` needs beside it.

const { BodyError, Guard, bodyRefusal } = require('./incoming.js');
const { editRequest, editResponse, stripManaged } = require('./edits.js');
const { NEEDS } = require('./introspector.js');
const { withLines } = require('./lines.js');

/** Authenticates every request of the instance that registers it, and of those below: the decision is at `request.tokenward`. */
function tokenward(fastify, options, done) {
  const { introspector } = options;
  let guard;
  try {
    guard = new Guard(introspector, options);
  } catch (error) {
    done(error);
    return;
  }
  fastify.decorateRequest('tokenward', null);

  fastify.addHook('onRequest', function tokenward(request, reply, next) {
    const req = request.raw;
    let passes = false;
    try {
      const own = configOf(request)?.tokenward;
      const target = req.url;
      if (own === false || guard.isExcluded(target, req)) {
        stripManaged(req);
        passes = true;
      } else {
        const policy = own?.policy;
        const step = guard.begin(req, target, policy);
        if (step === NEEDS || step.kind === 'introspect' || step.kind === 'wait') {
          proceed(guard, step, request, reply, target, policy, next);
        } else {
          passes = decided(guard, step, request, reply);
        }
      }
    } catch (error) {
      failed(guard, error, request, reply);
      return;
    }
    if (passes) next();
  });

  done();
}

// For the instance that registers it, not for one below.
tokenward[Symbol.for('skip-override')] = true;
tokenward[Symbol.for('fastify.display-name')] = 'tokenward';
tokenward[Symbol.for('plugin-meta')] = { fastify: '>=5', name: 'tokenward' };

let CONTEXT;

/**
 * The configuration of a request's route. Fastify makes an object of a dozen members for whoever asks for it; where it keeps what
 * it makes it of is its own affair, and what is not there is asked for.
 */
function configOf(request) {
  const context = CONTEXT === undefined ? undefined : request[CONTEXT];
  if (context !== undefined) return context.config;
  const { config } = request.routeOptions;
  CONTEXT = Object.getOwnPropertySymbols(request).find(
    (symbol) => symbol.description === 'fastify.context' && config !== undefined && request[symbol]?.config === config,
  );
  return config;
}

async function proceed(guard, step, request, reply, target, policy, next) {
  const req = request.raw;
  const gone = new AbortController();
  const leave = () => gone.abort();
  let passes = false;
  try {
    reply.raw.once('close', leave);
    const decision = await guard.proceed(step, req, target, policy, gone.signal);
    if (gone.signal.aborted) return;
    passes = decided(guard, decision, request, reply);
  } catch (error) {
    if (!gone.signal.aborted) failed(guard, error, request, reply);
    return;
  } finally {
    reply.raw.off('close', leave);
  }
  if (passes) next();
}

/** Does what the decision says; tells whether the request goes on. */
function decided(guard, decision, request, reply) {
  if (decision.kind === 'allow') {
    editRequest(request.raw, decision);
    editResponse(reply.raw, decision);
    // Fastify has parsed the query by now.
    if (decision.target !== null && request.query) delete request.query.access_token;
    request.tokenward = decision;
    return true;
  }
  deny(guard, decision, request, reply);
  return false;
}

function deny(guard, decision, request, reply) {
  const { onDeny } = guard;
  if (onDeny === undefined) {
    refuse(decision, reply);
    return;
  }
  // A function that fails, at once or later, leaves the refusal to us.
  const answer = () => {
    if (reply.sent) return;
    // Begun past Fastify: what cannot be answered any more is cut off.
    if (reply.raw.headersSent) reply.raw.destroy();
    else refuse(decision, reply);
  };
  try {
    const result = onDeny(decision, request, reply);
    if (result !== reply && typeof result?.then === 'function') result.then(undefined, answer);
  } catch {
    answer();
  }
}

function refuse(decision, reply) {
  reply.code(decision.status);
  for (const [name, value] of decision.headers) reply.header(name, value);
  // As bytes: no serializer of the application's has a say.
  reply.send(decision.body === null ? '' : Buffer.from(decision.body));
}

function failed(guard, error, request, reply) {
  try {
    deny(guard, error instanceof BodyError ? bodyRefusal(error) : guard.internal(request.raw), request, reply);
  } catch {
    reply.raw.destroy();
  }
}

/**
 * Options for `@fastify/http-proxy`: `app.register(httpProxy, { upstream, ...proxyOptions })`. The request was edited already; these
 * keep lines of one name apart, and give a WebSocket to the upstream the same headers.
 */
const proxyOptions = Object.freeze({
  replyOptions: Object.freeze({
    rewriteRequestHeaders: (request, headers) => withLines(headers, request.tokenward),
  }),
  wsClientOptions: Object.freeze({
    rewriteRequestHeaders: (headers, request) => {
      const { cookie } = request.headers;
      return withLines(cookie === undefined ? { ...headers } : { ...headers, cookie }, request.tokenward);
    },
  }),
});

module.exports = { proxyOptions, tokenward };
