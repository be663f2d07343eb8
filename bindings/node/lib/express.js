'use strict';
// Connect's kind of middleware: for Express, Connect, and `http` itself.

const { BodyError, Guard, bodyRefusal, refuse } = require('./incoming.js');
const { editRequest, editResponse, stripManaged } = require('./edits.js');
const { NEEDS } = require('./introspector.js');

/** A middleware `(req, res, next)` that lets authenticated requests pass, edited, with the decision at `req.tokenward`. */
function tokenward(introspector, options) {
  const guard = new Guard(introspector, options);

  return function tokenward(req, res, next) {
    let passes = false;
    try {
      // A path that a router has cut is looked at whole.
      const target = req.originalUrl ?? req.url;
      req.tokenward = undefined;
      if (guard.isExcluded(target, req)) {
        stripManaged(req);
        passes = true;
      } else {
        const step = guard.begin(req, target, undefined);
        if (step === NEEDS || step.kind === 'introspect' || step.kind === 'wait') {
          proceed(guard, step, req, res, target, next);
        } else {
          passes = decided(guard, step, req, res);
        }
      }
    } catch (error) {
      failed(guard, error, req, res);
      return;
    }
    // Outside of the above: what the application throws is its own.
    if (passes) next();
  };
}

async function proceed(guard, step, req, res, target, next) {
  const gone = new AbortController();
  const leave = () => gone.abort();
  let passes = false;
  try {
    res.once('close', leave);
    const decision = await guard.proceed(step, req, target, undefined, gone.signal);
    if (gone.signal.aborted) return;
    passes = decided(guard, decision, req, res);
  } catch (error) {
    if (!gone.signal.aborted) failed(guard, error, req, res);
    return;
  } finally {
    res.off('close', leave);
  }
  if (passes) next();
}

/** Does what the decision says; tells whether the request goes on. */
function decided(guard, decision, req, res) {
  if (decision.kind === 'allow') {
    editRequest(req, decision);
    editResponse(res, decision);
    req.tokenward = decision;
    return true;
  }
  deny(guard, decision, req, res);
  return false;
}

function deny(guard, decision, req, res) {
  const { onDeny } = guard;
  if (onDeny === undefined) {
    refuse(decision, req, res);
    return;
  }
  // A function that fails, at once or later, leaves the refusal to us.
  const answer = () => (res.writableEnded ? undefined : refuse(decision, req, res));
  try {
    const result = onDeny(decision, req, res);
    if (typeof result?.then === 'function') result.then(undefined, answer);
  } catch {
    answer();
  }
}

function failed(guard, error, req, res) {
  try {
    deny(guard, error instanceof BodyError ? bodyRefusal(error) : guard.internal(req), req, res);
  } catch {
    res.destroy();
  }
}

module.exports = { tokenward };
