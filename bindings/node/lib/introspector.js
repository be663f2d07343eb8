'use strict';
// Who is behind an access token: the introspector, its policies, and the way of a request from step to step.

const { inspect } = require('node:util');
const { LAST_RESORT, NEEDS, Port, channels, flatten } = require('./port.js');
const { configuring } = require('./errors.js');
const { Failed, call, transport } = require('./transport.js');

const released = new FinalizationRegistry(({ port, number }) => port.native.releasePolicy(number));

/** A further policy over an introspector's cache. */
class Policy {
  #port;
  #number;

  constructor(port, number) {
    this.#port = port;
    this.#number = number;
    released.register(this, { port, number });
  }

  static numberOf(policy, port) {
    if (!(policy instanceof Policy) || policy.#port !== port) throw new TypeError('`policy` is not of this introspector');
    return policy.#number;
  }

  [inspect.custom]() {
    return 'Policy {}';
  }
}

const json = (value, what) => {
  if (typeof value === 'string') return value;
  if (value === null || typeof value !== 'object') throw new TypeError(`\`${what}\` is no object`);
  return JSON.stringify(value);
};

function sourceOf({ config, file, consumers, folder, select, env = process.env }) {
  return {
    text: file === undefined ? json(config, 'config') : undefined,
    file,
    folder,
    select,
    env: Object.fromEntries(Object.entries(env).filter(([, value]) => typeof value === 'string')),
    consumers: consumers === undefined ? undefined : json(consumers, 'consumers'),
  };
}

class Introspector {
  #port;
  #options;
  #send;
  #endpoint;

  constructor(config, options = {}) {
    this.#options = options;
    const { fetch, dispatcher } = options;
    if (fetch !== undefined && typeof fetch !== 'function') throw new TypeError('`fetch` is no function');
    if (dispatcher !== undefined && typeof dispatcher?.request !== 'function') throw new TypeError('`dispatcher` is no dispatcher');
    this.#port = new Port(config instanceof File ? sourceOf({ ...options, file: config.path }) : sourceOf({ ...options, config }), options);
    this.#connect();
  }

  static fromFile(path, options) {
    return new this(new File(path), options);
  }

  static fromKong(path, options) {
    return new this(new File(path), options);
  }

  get bodyBytes() {
    return this.#endpoint.bodyBytes;
  }

  get warnings() {
    return this.#port.native.warnings();
  }

  get consumers() {
    return this.#port.native.consumers();
  }

  policy(fields) {
    const number = configuring(() => this.#port.policy(json(fields, 'policy')));
    this.#port.drain();
    return new Policy(this.#port, number);
  }

  lookup(request, options) {
    const { method, target, raw, rest } = this.#request(request, options);
    return this.#port.lookup(method, target, raw, rest);
  }

  needsBody(request, options) {
    const { method, target, raw, rest } = this.#request(request, options);
    return this.#port.needsBody(method, target, raw, rest);
  }

  begin(request, options) {
    const { method, target, raw, rest } = this.#request(request, options);
    return this.#port.begin(method, target, raw, rest);
  }

  async check(request, options) {
    const { method, target, raw, rest } = this.#request(request, options);
    options?.signal?.throwIfAborted();
    return this.#settle(this.#port.begin(method, target, raw, rest), method, options?.signal);
  }

  /** Goes from step to step until there is a decision. Whatever goes wrong on the way is one, too. */
  async #settle(step, method, signal) {
    try {
      for (;;) {
        if (step.kind === 'introspect') step = await this.#introspect(step, signal);
        else if (step.kind === 'wait') step = await waited(step, signal);
        else return step;
      }
    } catch (error) {
      step.abandon?.();
      if (signal?.aborted) throw signal.reason;
      process.emitWarning('tokenward met an unexpected error and denied a request', {
        type: 'TokenwardWarning',
        detail: error?.stack,
      });
      return this.internal(method === 'HEAD');
    }
  }

  async #introspect(exchange, signal) {
    const began = performance.now();
    let outcome;
    let next;
    try {
      const { status, headers, body } = await call(exchange, this.#send, this.#endpoint.replyBytes, signal);
      outcome = { status };
      next = exchange.reply({ status, headers, body });
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      outcome = { failure: error.failure };
      next = exchange.fail(error.failure);
    }
    if (channels.introspection.hasSubscribers) {
      channels.introspection.publish({ ...outcome, duration: performance.now() - began });
    }
    return next;
  }

  internal(head = false) {
    return this.#port?.internal(Boolean(head)) ?? LAST_RESORT;
  }

  replaceConsumers(consumers) {
    configuring(() => this.#port.native.replaceConsumers(json(consumers, 'consumers')));
    this.#replaced();
  }

  replaceConfig(config) {
    configuring(() => this.#port.native.replaceConfig(sourceOf({ ...this.#options, consumers: undefined, config }), false));
    this.#connect();
    this.#replaced();
  }

  replaceFile(path) {
    configuring(() => this.#port.native.replaceConfig(sourceOf({ ...this.#options, consumers: undefined, file: path }), true));
    this.#connect();
    this.#replaced();
  }

  forget(token) {
    if (typeof token !== 'string') throw new TypeError('`token` is no string');
    const forgotten = this.#port.native.forget(token);
    this.#replaced();
    return forgotten;
  }

  forgetAll() {
    this.#port.native.forgetAll();
    this.#replaced();
  }

  snapshot() {
    return this.#port.native.snapshot();
  }

  metrics() {
    return this.#port.native.prometheus();
  }

  #replaced() {
    this.#port.clear();
    this.#port.drain();
  }

  #connect() {
    this.#endpoint = this.#port.native.endpoint();
    this.#send = transport(this.#options, this.#endpoint);
  }

  /** A request in the parts that the addon takes. */
  #request(request, options) {
    const { method } = request;
    const target = request.target ?? request.url;
    if (typeof method !== 'string') throw new TypeError('`method` is no string');
    if (typeof target !== 'string') throw new TypeError('`url` is no string');
    const { rawHeaders } = request;
    const raw = rawHeaders === undefined ? flatten(request.headers ?? []) : rawHeaders;
    if (!Array.isArray(raw) || raw.length % 2 !== 0) throw new TypeError('`rawHeaders` is no list of names and values');
    const trailers = request.trailerNames;
    let rest;
    if (options !== undefined || trailers !== undefined || this.#options.clock !== undefined) {
      const { policy, body } = options ?? {};
      rest = {
        policy: policy === undefined ? 0 : Policy.numberOf(policy, this.#port),
        body: typeof body === 'string' ? Buffer.from(body) : (body ?? undefined),
        trailers,
      };
    }
    return { method, target, raw, rest };
  }

  [inspect.custom](depth, options) {
    const { hits, misses, entries } = this.snapshot();
    return `Introspector ${inspect({ hits, misses, entries }, options)}`;
  }

  // For the adapters, which know their requests to be Node's.

  static portOf(introspector) {
    return introspector.#port;
  }

  static settle(introspector, step, method, signal) {
    return introspector.#settle(step, method, signal);
  }

  static policyNumber(introspector, policy) {
    return Policy.numberOf(policy, introspector.#port);
  }
}

/** A path, which is no configuration. */
class File {
  constructor(path) {
    if (typeof path !== 'string') throw new TypeError('`path` is no string');
    this.path = path;
  }
}

/** Resumes a wait once that is of use. */
async function waited(wait, signal) {
  if (signal === undefined) {
    await wait.ready();
    return wait.resume();
  }
  let stop;
  const stopped = new Promise((_, fail) => {
    stop = () => fail(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
  });
  try {
    signal.throwIfAborted();
    await Promise.race([wait.ready(), stopped]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
  return wait.resume();
}

module.exports = { Introspector, NEEDS, Policy };
