'use strict';
// Steps that are not decisions. The addon keeps them by number; a step that is forgotten here is let go there.

const { inspect } = require('node:util');
const { StepError } = require('./errors.js');

const FAILURES = new Set(['connect', 'dns', 'tls', 'closed', 'timed_out', 'protocol', 'too_long', 'cut_off']);
const forgotten = new FinalizationRegistry(({ port, number }) => port.abandon(number));

/** What exchanges and waits have in common. */
class Step {
  #port;
  #number;
  #deadline;

  constructor(port, { number, deadline }) {
    this.#port = port;
    this.#number = number;
    this.#deadline = deadline;
    forgotten.register(this, { port, number }, this);
  }

  get deadline() {
    return this.#deadline;
  }

  get timeLeft() {
    return this.#port.until(this.#deadline);
  }

  get isUsed() {
    return this.#number === undefined;
  }

  /** Lets the request go: it counts as denied, and whoever waits for the same answer is looked after. */
  abandon() {
    if (this.#number === undefined) return;
    forgotten.unregister(this);
    const number = this.#number;
    this.#number = undefined;
    this.#port.abandon(number);
  }

  [inspect.custom](depth, options) {
    return `${this.constructor.name} ${inspect({ deadline: this.#deadline, isUsed: this.isUsed }, options)}`;
  }

  /** Looks at the step without using it. */
  static look(step, run) {
    if (step.#number === undefined) throw new StepError('the step was used already');
    return run(step.#port, step.#number);
  }

  /** Uses the step: what comes of it is the next one. */
  static use(step, run) {
    if (step.#number === undefined) throw new StepError('the step was used already');
    forgotten.unregister(step);
    const number = step.#number;
    step.#number = undefined;
    const port = step.#port;
    return port.after(() => {
      try {
        return run(port, number);
      } catch (error) {
        // It may not have come to the addon: there it would be under way for ever.
        port.abandon(number);
        throw error;
      }
    });
  }
}

if (Symbol.dispose) {
  Object.defineProperty(Step.prototype, Symbol.dispose, { value: Step.prototype.abandon, configurable: true, writable: true });
}

/** One call to the introspection endpoint, to be made by the host. It holds the token and our credentials. */
class Exchange extends Step {
  #outbound;

  get kind() {
    return 'introspect';
  }

  get timeLeft() {
    // No more than `timeout`, even if the clock went back.
    return Math.min(this.#look().timeLeft, super.timeLeft);
  }

  get isRetry() {
    return this.#look().isRetry;
  }

  get method() {
    return this.#look().method;
  }

  get url() {
    return this.#look().url;
  }

  get headers() {
    return this.#look().headers;
  }

  get body() {
    return this.#look().body;
  }

  reply({ status, headers = [], body = '' }) {
    if (!Number.isInteger(status) || status < 100 || status > 999) throw new TypeError('`status` is no HTTP status');
    // Some clients decode values as UTF-8. What is no byte then is of no header that counts.
    const lines = flatten(headers).map((part) => part.replace(/[^\0-\xff]/g, '?'));
    const bytes = typeof body === 'string' ? Buffer.from(body) : body;
    if (!(bytes instanceof Uint8Array)) throw new TypeError('`body` is no string and no Uint8Array');
    return Step.use(this, (port, number) => port.reply(number, status, lines, bytes));
  }

  fail(failure) {
    if (!FAILURES.has(failure)) throw new TypeError(`\`failure\` is none of ${[...FAILURES].join(', ')}`);
    return Step.use(this, (port, number) => port.fail(number, failure));
  }

  #look() {
    return Step.look(this, (port, number) => {
      if (this.#outbound === undefined) {
        const { headers, ...outbound } = port.outbound(number);
        outbound.headers = headers.flatMap((name, i) => (i % 2 === 0 ? [[name, headers[i + 1]]] : []));
        this.#outbound = outbound;
      }
      return this.#outbound;
    });
  }
}

/** One request's wait for an answer that another one asked for. */
class Wait extends Step {
  get kind() {
    return 'wait';
  }

  onReady(listener) {
    if (typeof listener !== 'function') throw new TypeError('`listener` is no function');
    Step.look(this, (port, number) => port.listen(number, listener));
  }

  /** Fulfilled when the wait can be resumed with profit, or its deadline comes. */
  ready() {
    return new Promise((resolve) => {
      let timer;
      const done = () => {
        clearTimeout(timer);
        resolve();
      };
      this.onReady(done);
      // Timers are cut to whole milliseconds: one more, and the deadline is over.
      timer = setTimeout(done, Math.min(this.timeLeft + 1, 0x7fffffff));
    });
  }

  resume() {
    return Step.use(this, (port, number) => port.proceed(number));
  }
}

/** Lines as names and values in turn, from pairs, a `Headers`, or an object. */
function flatten(headers) {
  const flat = [];
  const add = (name, value) => {
    if (typeof name !== 'string' || typeof value !== 'string') throw new TypeError('a header is no pair of strings');
    flat.push(name, value);
  };
  if (typeof headers[Symbol.iterator] === 'function') {
    for (const [name, value] of headers) add(name, value);
  } else {
    for (const [name, value] of Object.entries(headers)) {
      if (Array.isArray(value)) for (const one of value) add(name, one);
      else if (value !== undefined) add(name, value);
    }
  }
  return flat;
}

module.exports = { Exchange, Wait, flatten };
