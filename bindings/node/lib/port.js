'use strict';
// An introspector of the addon, and what has to be done around its calls: its number is taken apart, its events are passed on.

const dc = require('node:diagnostics_channel');
const { Allow, Deny, NOBODY, Shared } = require('./decision.js');
const { StepError, configuring } = require('./errors.js');
const { credentialAt } = require('./counted.js');
const native = require('./native.js');
const { Exchange, Wait, flatten } = require('./steps.js');

// The addon's numbers, see src/decide.rs.
const ALLOW = 1;
const DENY = 2;
const INTROSPECT = 3;
const WAIT = 4;
const NEEDS_BODY = 5;
const WHOLE = 6;
const MORE = 64;
const EVENTS = 128;
const SHARED = 256;
const LOOKUP = 0;
const BEGIN = 1 << 16;
const BODY = 2 << 16;
const ASK_FOR_BODY = 4 << 16;
const DIVIDED = 8 << 16;
const POLICY = 1 << 20;
const MOST_HEADERS = 0xffff;
const LEAN_BEGIN = 8;
const LEAN_POLICY = 16;
const MOST_POLICIES = 4096;

const LEVELS = { error: 0, warn: 1, info: 2, debug: 3 };
/** How many shared parts are kept at most, each by the low bits of its number. */
const KEPT = 1024;
/** Larger claims are not kept here; the addon has them as long as it remembers the answer. */
const LARGE = 16384;

const channels = {
  decision: dc.channel('tokenward:decision'),
  introspection: dc.channel('tokenward:introspection'),
  log: dc.channel('tokenward:log'),
};

const NONE = Object.freeze([]);

/** The number of a method for `glance`; -1 has none. */
function numberOf(method) {
  switch (method) {
    case 'GET':
      return 0;
    case 'HEAD':
      return 1;
    case 'POST':
      return 2;
    case 'PUT':
      return 3;
    case 'PATCH':
      return 4;
    case 'DELETE':
      return 5;
    case 'OPTIONS':
      return 6;
    default:
      return -1;
  }
}

/** One text of all parts, joined as a list: a string that is made of others is copied once more when it is read. */
function joined(method, target, raw, divider) {
  const parts = raw.slice();
  parts.push(method, target);
  return parts.join(divider);
}

/** Whether a text has more NULs than parts that they divide. */
const hasNul = (text, raw, rest) => text.split('\0').length !== 2 + raw.length + (rest?.trailers?.length ?? 0);

/** `begin` needs the body first. */
const NEEDS = Symbol('the body is needed');

class Port {
  #native;
  #decide;
  #glance;
  /** Methods, by bits, for which the addon wanted requests whole, by policy. A hint alone: the addon knows. */
  #whole = new Uint8Array(MOST_POLICIES);
  #numbers = new Float64Array(KEPT);
  #kept = new Array(KEPT).fill(undefined);
  /** What is known of waits, by number. */
  #waits = new Map();
  #log;
  #clock;
  #draining = false;

  constructor(source, { log, logLevel = 'info', clock } = {}) {
    if (log !== undefined && typeof log !== 'function') throw new TypeError('`log` is no function');
    if (clock !== undefined && typeof clock !== 'function') throw new TypeError('`clock` is no function');
    if (!Object.hasOwn(LEVELS, logLevel)) throw new TypeError('`logLevel` is none of error, warn, info, debug');
    this.#native = configuring(() => new native.NativeIntrospector(source, LEVELS[logLevel]));
    this.#decide = this.#native.decider();
    this.#glance = this.#native.glancer();
    this.#log = log;
    this.#clock = clock;
    this.drain();
  }

  get native() {
    return this.#native;
  }

  /** The decision, or `null` if somebody would have to be asked. */
  lookup(method, target, raw, rest) {
    const code = this.#brief(method, target, raw, 0, rest);
    return code === WHOLE ? this.#ask(method, target, raw, LOOKUP, rest) : this.#found(code);
  }

  /** The step; with `askForBody`, `NEEDS` if the body is needed and not given. */
  begin(method, target, raw, rest, askForBody = false) {
    const code = this.#brief(method, target, raw, LEAN_BEGIN, rest);
    if (code !== WHOLE) return this.#found(code);
    return this.#ask(method, target, raw, askForBody ? BEGIN | ASK_FOR_BODY : BEGIN, rest);
  }

  /** The addon's number for a request of which little counts: that alone crosses. `WHOLE` if that does not do. */
  #brief(method, target, raw, want, rest) {
    const number = numberOf(method);
    if (number < 0) return WHOLE;
    let policy = 0;
    if (rest !== undefined) {
      if (rest.body !== undefined || rest.trailers !== undefined) return WHOLE;
      policy = rest.policy;
    }
    if (this.#whole[policy] & (1 << number)) return WHOLE;
    const at = credentialAt(raw);
    if (at < 0) return WHOLE;
    const value = raw[at + 1];
    const what = number + want + policy * LEAN_POLICY;
    // The string itself, which is read as it is: one that is made of others is copied first.
    let code;
    if (this.#clock !== undefined) {
      const [wall, mono] = this.#now();
      code = this.#glance(value, what, target, wall, mono);
    } else if (target.includes('?')) {
      code = this.#glance(value, what, target);
    } else {
      code = this.#glance(value, what);
    }
    if (code === WHOLE) this.#whole[policy] |= 1 << number;
    return code;
  }

  needsBody(method, target, raw, rest) {
    return this.#ask(method, target, raw, BODY, rest) === NEEDS;
  }

  #ask(method, target, raw, want, rest, divider = '\0') {
    const lines = raw.length >> 1;
    if (lines > MOST_HEADERS) throw new TypeError('the request has too many headers');
    let text = '';
    let code;
    try {
      if (rest === undefined && this.#clock === undefined) {
        text = joined(method, target, raw, divider);
        code = this.#decide(text, want + lines);
      } else {
        const { policy = 0, body, trailers = NONE } = rest ?? {};
        text = joined(method, target, trailers.length > 0 ? raw.concat(trailers) : raw, divider);
        const what = want + lines + policy * POLICY;
        if (this.#clock === undefined) {
          code = this.#decide(text, what, trailers.length, body);
        } else {
          const [wall, mono] = this.#now();
          code = this.#decide(text, what, trailers.length, body, wall, mono);
        }
      }
    } catch (error) {
      // A NUL is a byte like any other, and for the core to refuse.
      if (divider !== '\0' || error.code !== 'ERR_TOKENWARD_REQUEST' || !hasNul(text, raw, rest)) throw error;
      return this.#ask(method, target, raw, want | DIVIDED, rest, '\u0100');
    }
    return this.#found(code);
  }

  /** Makes of the addon's number what it stands for. */
  #found(code) {
    // Beyond 32 bits only what is above is cut off.
    const low = code & (SHARED - 1);
    let step;
    switch (low & 7) {
      case ALLOW:
        step = this.#shared((code - low) / SHARED);
        step = low & MORE ? Object.freeze(new Allow(step, this.#native.own(), low)) : step.allow(low);
        break;
      case DENY:
        step = new Deny(this.#native.refusal());
        break;
      case INTROSPECT:
        step = new Exchange(this, this.#native.step());
        break;
      case WAIT:
        step = this.#native.step();
        this.#waits.set(step.number, { woken: undefined, listener: undefined, over: false });
        step = new Wait(this, step);
        break;
      case NEEDS_BODY:
        return NEEDS;
      default:
        step = null;
    }
    if (low & EVENTS) this.drain();
    if ((low & 7) <= DENY && step !== null && channels.decision.hasSubscribers) {
      channels.decision.publish({ decision: step });
    }
    return step;
  }

  #shared(number) {
    if (number === 0) return NOBODY;
    const slot = number % KEPT;
    if (this.#numbers[slot] === number) return this.#kept[slot];
    const shared = new Shared(this.#native.shared());
    if (shared.claimsText === null || shared.claimsText.length <= LARGE) {
      this.#numbers[slot] = number;
      this.#kept[slot] = shared;
    }
    return shared;
  }

  /** Makes a further policy. Its number may have been another's. */
  policy(json) {
    const number = this.#native.policy(json);
    this.#whole[number] = 0;
    return number;
  }

  /** Lets go of what was kept for answers that may be forgotten now, and of what was true of a configuration. */
  clear() {
    this.#whole.fill(0);
    this.#numbers.fill(0);
    this.#kept.fill(undefined);
  }

  #now() {
    const { wall, monotonic } = this.#clock();
    if (typeof wall !== 'number' || typeof monotonic !== 'number') throw new TypeError('`clock` gave no time');
    return [wall, monotonic];
  }

  /** Uses a step by `run` and gives the next one. */
  after(run) {
    let code;
    try {
      code = run();
    } catch (error) {
      this.drain();
      throw error;
    }
    return this.#found(code);
  }

  reply(number, status, headers, body) {
    const [wall, mono] = this.#clock ? this.#now() : [];
    return this.#native.reply(number, status, headers, body, wall, mono);
  }

  fail(number, failure) {
    const [wall, mono] = this.#clock ? this.#now() : [];
    return this.#native.fail(number, failure, wall, mono);
  }

  proceed(number) {
    const [wall, mono] = this.#clock ? this.#now() : [];
    this.#end(number);
    return this.#native.proceed(number, wall, mono);
  }

  abandon(number) {
    this.#end(number);
    this.#native.abandon(number);
    this.drain();
  }

  until(deadline) {
    if (this.#clock) return Math.max(0, (deadline - this.#now()[1]) * 1000);
    return this.#native.until(deadline);
  }

  outbound(number) {
    return this.#native.outbound(number);
  }

  /** `listener` is called once the wait can go on (`true`), or when it ends before that (`false`). */
  listen(number, listener) {
    const wait = this.#waits.get(number);
    const before = wait.listener;
    wait.listener = listener;
    if (before !== undefined) quietly(before, false);
    if (wait.woken !== undefined) this.#tell(wait);
  }

  #tell(wait) {
    const { listener } = wait;
    wait.listener = undefined;
    if (listener !== undefined) quietly(listener, wait.woken);
  }

  /** A wait is used or let go. The addon tells of every wait exactly once, of one that ends unwoken after its end. */
  #end(number) {
    const wait = this.#waits.get(number);
    if (wait === undefined) return;
    wait.over = true;
    if (wait.woken !== undefined) this.#waits.delete(number);
  }

  /** Passes on what has happened beside the request. */
  drain() {
    // A listener that resumes a step comes back here: what it causes is passed on by the one that runs already.
    if (this.#draining) return;
    this.#draining = true;
    try {
      for (;;) {
        const woken = this.#native.woken();
        const lines = this.#native.lines();
        if (woken.length === 0 && lines.length === 0) return;
        for (const { number, ready } of woken) {
          const wait = this.#waits.get(number);
          if (wait === undefined) continue;
          wait.woken = ready;
          if (wait.over) this.#waits.delete(number);
          this.#tell(wait);
        }
        for (const line of lines) {
          if (this.#log !== undefined) quietly(this.#log, line);
          if (channels.log.hasSubscribers) channels.log.publish(line);
        }
      }
    } finally {
      this.#draining = false;
    }
  }

  internal(head) {
    try {
      const deny = new Deny(this.#native.internal(head));
      if (channels.decision.hasSubscribers) channels.decision.publish({ decision: deny });
      return deny;
    } catch {
      return LAST_RESORT;
    }
  }
}

/** The refusal where not even the addon can be asked. */
const LAST_RESORT = new Deny({
  reason: 'internal',
  number: 1599,
  status: 500,
  headers: ['Content-Type', 'application/json; charset=utf-8', 'Cache-Control', 'no-store'],
  body: '{"error":"server_error","error_description":"An unexpected error occurred"}',
  source: 'none',
});

/** Calls a function of the user's. That it throws is told, and is no concern of the request that happened to be there. */
function quietly(call, argument) {
  try {
    call(argument);
  } catch (error) {
    process.emitWarning(`a function given to tokenward threw: ${error?.name ?? typeof error}`, {
      type: 'TokenwardWarning',
      detail: error?.stack,
    });
  }
}

module.exports = { LAST_RESORT, NEEDS, Port, StepError, channels, flatten };
