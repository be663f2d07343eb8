'use strict';
// Decisions. What requests share is made once and frozen: no handler can change what another request sees.

const { inspect } = require('node:util');

const SOURCES = ['none', 'cache', 'endpoint', 'waiting'];
const NONE = Object.freeze([]);

const pairsOf = (flat) => {
  const pairs = [];
  for (let i = 0; i < flat.length; i += 2) pairs.push(Object.freeze([flat[i], flat[i + 1]]));
  return Object.freeze(pairs);
};

/** What decisions of one number have in common. */
class Shared {
  constructor(info) {
    const { identity, consumer, set, claims, expires } = info;
    if (consumer) {
      Object.freeze(consumer.tags);
      Object.freeze(consumer.groups);
      Object.freeze(consumer);
    }
    this.consumer = consumer ?? null;
    this.identity = Object.freeze(consumer ? { type: identity, consumer } : { type: identity });
    /** Names and values in turn, as they are sent. Nobody else sees it, and the engine reads what is frozen at half the speed. */
    this.flat = set;
    /** The same as Node's `headers` has it: names in lower case, lines of one name joined. */
    this.names = [];
    this.values = [];
    for (let i = 0; i < set.length; i += 2) {
      const name = set[i].toLowerCase();
      const at = this.names.indexOf(name);
      if (at < 0) {
        this.names.push(name);
        this.values.push(set[i + 1]);
      } else {
        this.values[at] += `, ${set[i + 1]}`;
      }
    }
    this.claimsText = claims ?? null;
    this.expires = expires ?? null;
    this.pairs = undefined;
    this.parsed = undefined;
    this.bits = 0;
    this.last = undefined;
  }

  /** The allow of which nothing is a request's own, with these bits: the same for all alike. */
  allow(bits) {
    if (this.bits !== bits) {
      this.bits = bits;
      this.last = Object.freeze(new Allow(this, null, bits));
    }
    return this.last;
  }

  set() {
    return (this.pairs ??= pairsOf(this.flat));
  }

  claims() {
    if (this.claimsText === null) return null;
    return (this.parsed ??= parse(this.claimsText));
  }
}

/** Of an allow that knows nobody: preflights. */
const NOBODY = new Shared({ identity: 'none', set: [] });

/** Parses JSON, frozen. Integers that a number cannot hold become BigInts, digit for digit. */
function parse(text) {
  if (!/[0-9]{16}/.test(text)) return JSON.parse(text, freeze);
  const marked = text.replace(/"(?:[^"\\]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/g, (found) => {
    const isBig = found[0] !== '"' && /^-?[0-9]+$/.test(found) && !Number.isSafeInteger(Number(found));
    // No string of the reply is mistaken for it: those are marked as well.
    return isBig ? `"i${found}"` : found[0] === '"' ? `"s${found.slice(1)}` : found;
  });
  return JSON.parse(marked, function (key, value) {
    if (typeof value === 'string') return value[0] === 'i' ? BigInt(value.slice(1)) : value.slice(1);
    if (value && typeof value === 'object' && !Array.isArray(value)) {
      const renamed = {};
      for (const name of Object.keys(value)) define(renamed, name.slice(1), value[name]);
      value = renamed;
    }
    return freeze(key, value);
  });
}

// A member called `__proto__` is a member and nothing else.
const define = (object, name, value) =>
  Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });

const freeze = (_, value) => (value && typeof value === 'object' ? Object.freeze(value) : value);

/** Leave to go on, and what the upstream may be told. */
class Allow {
  #shared;
  #own;
  #bits;
  #edits;

  /** `bits`: the low ones of the addon's number. */
  constructor(shared, own, bits) {
    this.#shared = shared;
    this.#own = own;
    this.#bits = bits;
  }

  get kind() {
    return 'allow';
  }

  get allowed() {
    return true;
  }

  get source() {
    return SOURCES[(this.#bits >> 3) & 3];
  }

  get identity() {
    return this.#shared.identity;
  }

  get consumer() {
    return this.#shared.consumer;
  }

  get claims() {
    return this.#shared.claims();
  }

  get claimsText() {
    return this.#shared.claimsText;
  }

  get expires() {
    return this.#shared.expires;
  }

  get edits() {
    if (this.#edits === undefined) {
      const remove = this.#own === null ? [] : [...this.#own.remove];
      if (this.#bits & 32) remove.unshift('Authorization');
      this.#edits = Object.freeze({ remove: Object.freeze(remove), set: this.#shared.set() });
    }
    return this.#edits;
  }

  get target() {
    return this.#own?.target ?? null;
  }

  get body() {
    return this.#own?.body ?? null;
  }

  get responseHeaders() {
    return this.#own === null ? NONE : pairsOf(this.#own.responseHeaders);
  }

  // For the adapters.
  static sharedOf(allow) {
    return allow.#shared;
  }

  static ownOf(allow) {
    return allow.#own;
  }

  static hides(allow) {
    return (allow.#bits & 32) !== 0;
  }

  /** Shows no claim and no header value. */
  [inspect.custom](depth, options) {
    const { consumer, type } = this.identity;
    const identity = consumer ? `${type} ${consumer.id}` : type;
    return `Allow ${inspect({ identity, source: this.source, set: this.edits.set.map(([name]) => name) }, options)}`;
  }

  toJSON() {
    return { kind: 'allow', source: this.source, identity: this.identity.type, consumer: this.consumer?.id ?? null };
  }
}

/** The answer to a client whose request does not go on. */
class Deny {
  constructor(refusal) {
    this.kind = 'deny';
    this.allowed = false;
    this.reason = refusal.reason;
    this.number = refusal.number;
    this.status = refusal.status;
    this.headers = pairsOf(refusal.headers);
    this.body = refusal.body ?? null;
    this.source = refusal.source;
    Object.freeze(this);
  }
}

module.exports = { Allow, Deny, NOBODY, Shared };
