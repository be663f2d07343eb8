/**
 * Who is behind an OAuth 2.0 access token, and what may the upstream be told about them: token introspection (RFC 7662) for
 * gateways in Node.js.
 *
 * The rules are those of Tokenward's core, whose README has every setting, header and refusal.
 */

import type { Consumer, Identity, LogLine, Problem, Reason, Snapshot } from './native.js';

export type { Consumer, Identity, LogLine, Problem, Reason, Snapshot };

/** A secret: itself, a variable of the environment, or a file (one trailing line end is cut). */
export type Secret = string | { env: string } | { file: string };

/** A failure that the anonymous consumer can stand in for. */
export type FailureClass = 'missing' | 'invalid' | 'forbidden' | 'unavailable';

/** Settings of a policy. The README of Tokenward has their meaning and defaults. */
export interface PolicyConfig {
  token_from?: ('header' | 'query' | 'body')[] | undefined;
  hide_credentials?: boolean | undefined;
  realm?: string | undefined;
  require?:
    | {
        /** Alternatives; the words of one are all needed: `["read write", "admin"]`. */
        scopes?: string[] | undefined;
        audience?: string[] | undefined;
        issuer?: string[] | undefined;
        consumer?: boolean | undefined;
      }
    | undefined;
  consumer_by?: 'username' | 'client_id' | undefined;
  anonymous?: string | undefined;
  anonymous_on?: FailureClass[] | undefined;
  run_on_preflight?: boolean | undefined;
  custom_claims_forward?: string[] | undefined;
  array_format?: 'json' | 'comma' | 'repeat' | undefined;
  header_encoding?: 'rfc8187' | 'utf8' | undefined;
}

/** A configuration: an introspector's settings and its own policy. A `config` block of Kong's works with `profile: 'kong'`. */
export interface Config extends PolicyConfig {
  /** The introspection endpoint (RFC 7662 §2): `https`, or `http` for loopback hosts. */
  introspection_url: string;
  /** The whole `Authorization` value of the introspection request; or `client_auth`. */
  authorization_value?: Secret | undefined;
  client_auth?:
    | {
        method: 'client_secret_basic' | 'client_secret_basic_raw' | 'client_secret_post' | 'none';
        client_id?: string | undefined;
        client_secret?: Secret | undefined;
      }
    | undefined;
  profile?: 'standard' | 'kong' | undefined;
  token_type_hint?: string | undefined;
  introspection_params?: Record<string, Secret> | undefined;
  custom_introspection_headers?: Record<string, Secret> | undefined;
  introspect_request?: boolean | undefined;
  tls_roots?: 'system' | { file: string } | undefined;
  allow_insecure_http?: boolean | undefined;
  /** Seconds, or until the token expires. Defaults to 30. */
  ttl?: number | 'until_exp' | undefined;
  /** Milliseconds that one request may spend on introspection. Defaults to 10000. */
  timeout?: number | undefined;
  /** Milliseconds that an idle connection is kept. With the built-in `fetch` or a dispatcher it is theirs to say. */
  keepalive?: number | undefined;
  retry?: { attempts?: number | undefined } | undefined;
  /** Seconds. Defaults to 1. */
  retry_after?: number | undefined;
  /** Seconds, at most 300. */
  leeway?: number | undefined;
  cache?:
    | {
        enabled?: boolean | undefined;
        capacity?: number | undefined;
        max_bytes?: number | undefined;
        negative_ttl?: number | undefined;
        negative_capacity?: number | undefined;
      }
    | undefined;
  limits?:
    | {
        token_bytes?: number | undefined;
        reply_bytes?: number | undefined;
        body_bytes?: number | undefined;
        header_bytes?: number | undefined;
        concurrent_introspections?: number | undefined;
      }
    | undefined;
  /** Consumers, where `options.consumers` does not give them. */
  consumers?: ConsumerConfig[] | undefined;
}

/** A consumer as it is configured: with a `username`, a `custom_id` or both. */
export interface ConsumerConfig {
  id?: string | undefined;
  username?: string | undefined;
  custom_id?: string | undefined;
  tags?: string[] | undefined;
  groups?: string[] | undefined;
}

/** What a call to the endpoint is made with where a function is given: as much of `fetch` as is used. */
export type Fetch = (
  url: string,
  init: {
    method: string;
    headers: [string, string][];
    body: string;
    signal: AbortSignal;
    redirect: 'manual';
  },
) => Promise<FetchResponse>;

/** As much of a `Response` as is looked at. */
export interface FetchResponse {
  readonly status: number;
  readonly type?: string | undefined;
  readonly redirected?: boolean | undefined;
  readonly headers: Iterable<[string, string]> & { get(name: string): string | null };
  /** A stream of bytes that can be iterated over, as those of Node and undici can. */
  readonly body: AsyncIterable<Uint8Array> | { getReader(): unknown } | null;
}

/** As much of an undici `Dispatcher` as is used. */
export interface Dispatcher {
  request(options: {
    origin: string;
    path: string;
    method: 'POST';
    headers: string[];
    body: string;
    signal: AbortSignal;
  }): Promise<{
    statusCode: number;
    headers: Record<string, string | string[] | undefined>;
    body: AsyncIterable<Uint8Array>;
  }>;
}

export interface IntrospectorOptions {
  /** Consumers that the gateway knows, in place of the document's own: an array or its JSON. */
  consumers?: ConsumerConfig[] | string | undefined;
  /** What relative paths of the configuration are relative to. Defaults to the current folder, for a file to its own. */
  folder?: string | undefined;
  /** Which plugin of a Kong file is meant: `route=NAME` or `service=NAME`. Needed if it has several. */
  select?: string | undefined;
  /** Variables for secrets that are given by name. Defaults to `process.env`. */
  env?: Record<string, string | undefined> | undefined;
  /** Makes the calls to the endpoint, in place of the built-in `fetch`. It must follow no redirect. */
  fetch?: Fetch | undefined;
  /** Makes the calls to the endpoint: an `Agent`, `Pool` or `ProxyAgent` of undici, for roots, pools and proxies of your own. */
  dispatcher?: Dispatcher | undefined;
  /** Takes log lines. They hold no token, secret, claim or header value. */
  log?: ((line: LogLine) => void) | undefined;
  /** The least urgent level that is logged. Defaults to `info`; `debug` has a line for each refusal. */
  logLevel?: 'error' | 'warn' | 'info' | 'debug' | undefined;
  /**
   * The time, for tests and hosts with clocks of their own: seconds since the epoch, and on a monotonic clock. Defaults to the
   * system's.
   */
  clock?: (() => { wall: number; monotonic: number }) | undefined;
}

/**
 * What a client has sent, as `http.IncomingMessage` has it: an `IncomingMessage` can be given as it is. Characters are bytes.
 */
export interface RequestLike {
  readonly method?: string | undefined;
  /** The request target as received, undecoded. */
  readonly url?: string | undefined;
  /** In place of `url`, where a framework has changed that. */
  readonly target?: string | undefined;
  /** Names and values in turn, every line. */
  readonly rawHeaders?: readonly string[] | undefined;
  /** Where there is no `rawHeaders`: pairs, a `Headers`, or an object. */
  readonly headers?: HeadersLike | undefined;
  /** Names of trailers that are known. */
  readonly trailerNames?: readonly string[] | undefined;
}

export type HeadersLike =
  | Iterable<readonly [string, string]>
  | { readonly [name: string]: string | readonly string[] | undefined };

export interface RequestOptions {
  /** A further policy. Defaults to the configuration's own. */
  policy?: Policy | undefined;
  /** The body, where `needsBody` asks for it. */
  body?: Uint8Array | string | null | undefined;
}

export interface CheckOptions extends RequestOptions {
  /** Lets the request go: the promise is rejected with the signal's reason, and whoever waits for the same answer goes on. */
  signal?: AbortSignal | undefined;
}

/** A header line: its name and its value. */
export type Line = readonly [name: string, value: string];

/** Where the answer behind a decision came from. */
export type Source = 'endpoint' | 'cache' | 'waiting' | 'none';

/** What becomes of a request: there is no third outcome. */
export type Decision = Allow | Deny;

/** What the host does next: nothing, make a call, or wait for somebody else's. */
export type Step = Allow | Deny | Exchange | Wait;

/** A value of JSON. Integers that a number cannot hold exactly are BigInts. */
export type Json = string | number | bigint | boolean | null | readonly Json[] | { readonly [name: string]: Json };

/** Leave to go on, and what the upstream may be told. */
export class Allow {
  private constructor();
  readonly kind: 'allow';
  readonly allowed: true;
  readonly source: Source;
  /** Who is behind the request. */
  readonly identity: Identity;
  /** The consumer, matched or anonymous, or `null`. */
  readonly consumer: Consumer | null;
  /** What the authorization server said about the token, frozen; `null` for the anonymous consumer and preflights. */
  readonly claims: { readonly [name: string]: Json } | null;
  /** The same in JSON, digit for digit. */
  readonly claimsText: string | null;
  /** When the token expires, in seconds since the epoch; `null` if nobody said. */
  readonly expires: number | null;
  /**
   * The edits of the upstream request: first every header and trailer of a name in `remove` is removed, case ignored, then each of
   * `set` is added as a line of its own.
   */
  readonly edits: { readonly remove: readonly string[]; readonly set: readonly Line[] };
  /** The request target for the upstream, where a credential was taken out of the query; or `null`. */
  readonly target: string | null;
  /** The body for the upstream, where a credential was taken out of it, and its length the new `Content-Length`; or `null`. */
  readonly body: Buffer | null;
  /** Headers that every 2xx answer to the client gets: `Cache-Control: private` if the token came from the query. */
  readonly responseHeaders: readonly Line[];
  /** Who is behind it, without claims. */
  toJSON(): { kind: 'allow'; source: Source; identity: Identity['type']; consumer: string | null };
}

/** The answer to a client whose request does not go on. */
export class Deny {
  private constructor();
  readonly kind: 'deny';
  readonly allowed: false;
  readonly source: Source;
  readonly reason: Reason;
  /** The reason's number, 1100 to 1599. */
  readonly number: number;
  /** The status of the answer. */
  readonly status: number;
  /** Its complete headers. */
  readonly headers: readonly Line[];
  /** Its body, in JSON; `null` for HEAD. */
  readonly body: string | null;
}

declare abstract class UnfinishedStep {
  /** On the monotonic clock, in seconds. */
  readonly deadline: number;
  /** Until then, in milliseconds. */
  readonly timeLeft: number;
  /** It was replied to, resumed or abandoned. Using it again is a `StepError`. */
  readonly isUsed: boolean;
  /** Lets the request go, which counts as denied. Whoever waits for the same answer is looked after. */
  abandon(): void;
  /** The same. */
  [Symbol.dispose](): void;
}

/** How a call to the endpoint failed. After `connect` and `closed` the next step may be another call. */
export type Failure = 'connect' | 'dns' | 'tls' | 'closed' | 'timed_out' | 'protocol' | 'too_long' | 'cut_off';

/**
 * One call to the introspection endpoint, to be made by the host: within `timeLeft` from connecting to the last byte, without
 * following redirects, and reading no more than `limits.reply_bytes`. It holds the token and our credentials.
 */
export class Exchange extends UnfinishedStep {
  private constructor();
  readonly kind: 'introspect';
  readonly method: 'POST';
  readonly url: string;
  /** Without `Host` and `Content-Length`. */
  readonly headers: [name: string, value: string][];
  /** The form. */
  readonly body: string;
  /** Whether the attempt before failed with `connect` or `closed`: this one goes over a new connection, no kept one. */
  readonly isRetry: boolean;
  /** Hands the answer over. */
  reply(response: { status: number; headers?: HeadersLike | undefined; body?: Uint8Array | string | undefined }): Step;
  /** Says how the call failed. */
  fail(failure: Failure): Step;
}

/** Another request makes the call already. */
export class Wait extends UnfinishedStep {
  private constructor();
  readonly kind: 'wait';
  /** Fulfilled when the wait can be resumed with profit, or at its deadline. */
  ready(): Promise<void>;
  /**
   * Calls once, with `true` when the wait can be resumed with profit, with `false` if it ends before that or another listener takes
   * this one's place. It may call at once.
   */
  onReady(listener: (ready: boolean) => void): void;
  /** Goes on; early, it is the wait again. */
  resume(): Step;
}

/** A further policy of an introspector. */
export class Policy {
  private constructor();
  // Of one introspector alone.
  readonly #introspector: unknown;
}

/** A configuration that cannot be used. */
export class ConfigError extends Error {
  constructor(problems: Problem[]);
  readonly code: 'ERR_TOKENWARD_CONFIG';
  /** Everything that is wrong, in the order of the document. */
  readonly problems: readonly Problem[];
}

/** A step that was used before. */
export class StepError extends Error {
  constructor(message: string);
  readonly code: 'ERR_TOKENWARD_STEP';
}

/**
 * Decides about requests: one endpoint, its cache, the calls under way, and a directory of consumers. It belongs to its thread; a
 * worker has its own.
 */
export class Introspector {
  /**
   * Reads a configuration: an object, or the text of a document (a Kong file's as well).
   * @throws {ConfigError} with everything that is wrong.
   */
  constructor(config: Config | string, options?: IntrospectorOptions);
  /** Reads a file: a configuration in JSON, or a declarative file of Kong's (`FILE#route=NAME` where it has several plugins). */
  static fromFile(path: string, options?: IntrospectorOptions): Introspector;
  /** The same, for a declarative file of Kong's. */
  static fromKong(path: string, options?: IntrospectorOptions): Introspector;

  /** How much of a request's body is read at most, in bytes. */
  readonly bodyBytes: number;
  /** What is probably not meant about configuration and consumers. */
  readonly warnings: Problem[];
  /** The directory of consumers. */
  readonly consumers: Consumer[];

  /** A further policy over the same cache. Fields that it does not give are those of the configuration; `require` is given as a whole. */
  policy(fields: PolicyConfig | string): Policy;

  /** The decision, or `null` at once if the authorization server would have to be asked. Never any I/O. */
  lookup(request: RequestLike, options?: RequestOptions): Decision | null;
  /**
   * The decision, asking the authorization server where needed. Whatever goes wrong on the way is a refusal; rejected is a call with
   * wrong arguments, or by `signal`.
   */
  check(request: RequestLike, options?: CheckOptions): Promise<Decision>;
  /** Whether the body is needed to decide. Read and hand it over only then, up to `bodyBytes` and one more. */
  needsBody(request: RequestLike, options?: RequestOptions): boolean;
  /** Begins to decide, for those with I/O of their own. A step that is forgotten is abandoned. */
  begin(request: RequestLike, options?: RequestOptions): Step;
  /** The refusal for a defect of the host's own: `internal`, 500. */
  internal(head?: boolean): Deny;

  /** Replaces the directory at once, for every decision from now on. */
  replaceConsumers(consumers: ConsumerConfig[] | string): void;
  /** Replaces the configuration. What is remembered stays if endpoint and credentials are the same; policies stay as they are. */
  replaceConfig(config: Config | string): void;
  /** Replaces configuration and consumers by those of a file. */
  replaceFile(path: string): void;
  /** Forgets what is remembered about a token; tells whether there was something. */
  forget(token: string): boolean;
  /** Forgets everything. */
  forgetAll(): void;
  /** The counters of now. */
  snapshot(): Snapshot;
  /** The counters as Prometheus text (exposition format 0.0.4). */
  metrics(): string;
}

/** Whether only Tokenward may set a header of this name, which is removed from what a client sends. */
export function isManaged(name: string): boolean;
