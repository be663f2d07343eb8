// Every public declaration, used as its documentation says and as it must not be: `tsc --strict` is the test.

import { createServer, IncomingMessage, ServerResponse } from 'node:http';
import express from 'express';
import Fastify from 'fastify';
import httpProxy from '@fastify/http-proxy';
import { createProxyMiddleware } from 'http-proxy-middleware';
import { Agent, fetch as undiciFetch, ProxyAgent } from 'undici';
import {
  Allow,
  ConfigError,
  Deny,
  Exchange,
  Introspector,
  Policy,
  StepError,
  Wait,
  isManaged,
  type CheckOptions,
  type Config,
  type Consumer,
  type ConsumerConfig,
  type Decision,
  type Dispatcher,
  type Failure,
  type FailureClass,
  type Fetch,
  type FetchResponse,
  type HeadersLike,
  type Identity,
  type IntrospectorOptions,
  type Json,
  type Line,
  type LogLine,
  type PolicyConfig,
  type Problem,
  type Reason,
  type RequestLike,
  type RequestOptions,
  type Secret,
  type Snapshot,
  type Source,
  type Step,
} from 'tokenward';
import { tokenward, type Exclusion, type Options as ExpressOptions } from 'tokenward/express';
import { proxyOptions, tokenward as plugin, type Options as FastifyOptions } from 'tokenward/fastify';
import {
  editRequest,
  editResponse,
  forwardHeaders,
  guardUpgrade,
  makePrivate,
  proxyEvents,
  type UpgradeOptions,
} from 'tokenward/proxy';

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const is = <T extends true>(): T | undefined => undefined;

const secret: Secret[] = ['Basic eA==', { env: 'NAME' }, { file: 'path' }];
const policyFields: Required<PolicyConfig> = {
  token_from: ['header', 'query', 'body'],
  hide_credentials: true,
  realm: 'service',
  require: { scopes: ['a b'], audience: ['a'], issuer: ['i'], consumer: true },
  consumer_by: 'client_id',
  anonymous: 'guest',
  anonymous_on: ['missing', 'invalid', 'forbidden', 'unavailable'] satisfies FailureClass[],
  run_on_preflight: false,
  custom_claims_forward: ['/a/b'],
  array_format: 'repeat',
  header_encoding: 'utf8',
};
const consumers: ConsumerConfig[] = [{ id: '1', username: 'alice', custom_id: 'c', tags: ['a'], groups: ['b'] }];
const config: Required<Config> = {
  ...policyFields,
  introspection_url: 'https://as.example/',
  authorization_value: { env: 'NAME' },
  client_auth: { method: 'client_secret_post', client_id: 'a', client_secret: 'b' },
  profile: 'kong',
  token_type_hint: 'access_token',
  introspection_params: { resource: 'a' },
  custom_introspection_headers: { 'X-A': { file: 'b' } },
  introspect_request: true,
  tls_roots: { file: 'roots.pem' },
  allow_insecure_http: false,
  ttl: 'until_exp',
  timeout: 1,
  keepalive: 1,
  retry: { attempts: 1 },
  retry_after: 1,
  leeway: 1,
  cache: { enabled: true, capacity: 1, max_bytes: 1, negative_ttl: 0, negative_capacity: 0 },
  limits: { token_bytes: 1, reply_bytes: 1, body_bytes: 1, header_bytes: 1, concurrent_introspections: 1 },
  consumers,
};
// @ts-expect-error an unknown field
const unknownField: Config = { introspection_url: 'https://as.example/', tll: 5 };
// @ts-expect-error the endpoint is required
const noEndpoint: Config = { ttl: 5 };

const fetchOf: Fetch = async (url, { method, headers, body, signal, redirect }) => {
  is<Equal<typeof redirect, 'manual'>>();
  return fetch(url, { method, headers, body, signal, redirect });
};
const agent: Dispatcher = new Agent();
const options: IntrospectorOptions = {
  consumers,
  folder: '.',
  select: 'route=a',
  env: process.env,
  fetch: fetchOf,
  log: ({ level, reason, message, fields, text }: LogLine) => {
    is<Equal<typeof level, 'error' | 'warn' | 'info' | 'debug'>>();
    is<Equal<typeof reason, Reason | undefined>>();
    console.log(message, fields.status, text);
  },
  logLevel: 'debug',
  clock: () => ({ wall: 0, monotonic: 0 }),
};
new Introspector(config, { dispatcher: new ProxyAgent('http://127.0.0.1:3128') });
new Introspector(config, { fetch: undiciFetch });
new Introspector(config, { fetch });
const introspector = new Introspector(config, options);
const fromFiles: Introspector[] = [Introspector.fromFile('a.json'), Introspector.fromKong('kong.yaml#route=a', options)];
// @ts-expect-error a level that there is not
new Introspector(config, { logLevel: 'loud' });

const policy: Policy = introspector.policy(policyFields);
// @ts-expect-error made by an introspector alone
new Policy();
const request: RequestLike = { method: 'GET', url: '/', rawHeaders: ['Authorization', 'Bearer a'], trailerNames: [] };
const likes: HeadersLike[] = [[['a', 'b']], new Headers(), { a: 'b', c: ['d', 'e'], f: undefined }, new Map([['a', 'b']])];
const requestOptions: RequestOptions = { policy, body: new Uint8Array() };
const checkOptions: CheckOptions = { ...requestOptions, signal: new AbortController().signal };

function look(decision: Decision): number {
  is<Equal<typeof decision.source, Source>>();
  if (decision.kind === 'allow') {
    is<Equal<typeof decision, Allow>>();
    const { identity, consumer, claims, claimsText, expires, edits, target, body, responseHeaders } = decision;
    is<Equal<typeof identity, Identity>>();
    is<Equal<typeof consumer, Consumer | null>>();
    is<Equal<typeof claimsText, string | null>>();
    is<Equal<typeof expires, number | null>>();
    is<Equal<typeof target, string | null>>();
    is<Equal<typeof body, Buffer | null>>();
    if (identity.type === 'consumer') {
      const { id, username, customId, tags, groups } = identity.consumer;
      is<Equal<typeof username, string | null>>();
      console.log(id, customId, tags[0], groups[0]);
    } else if (identity.type === 'none') {
      is<Equal<typeof identity.consumer, undefined>>();
    }
    const sub: Json | undefined = claims?.sub;
    const [first]: readonly Line[] = edits.set;
    // @ts-expect-error what requests share does not change
    edits.set.push(['a', 'b']);
    // @ts-expect-error nor do claims
    if (claims) claims.sub = 'root';
    console.log(sub, first?.[0], edits.remove[0], responseHeaders.length, decision.toJSON().kind);
    // @ts-expect-error an allow has no status
    return decision.status;
  }
  is<Equal<typeof decision, Deny>>();
  const { reason, number, status, headers, body } = decision;
  is<Equal<typeof reason, Reason>>();
  is<Equal<typeof body, string | null>>();
  for (const [name, value] of headers) console.log(name, value);
  return number + status;
}

function narrow(decision: Decision): Reason | string | undefined {
  return decision.allowed ? decision.consumer?.id : decision.reason;
}

async function go(): Promise<void> {
  const found = introspector.lookup(request, requestOptions);
  is<Equal<typeof found, Decision | null>>();
  const decision = await introspector.check(request, checkOptions);
  is<Equal<typeof decision, Decision>>();
  look(decision);
  narrow(decision);
  if (introspector.needsBody(request)) console.log(introspector.bodyBytes);

  let step: Step = introspector.begin(request);
  while (step.kind === 'introspect' || step.kind === 'wait') {
    if (step.kind === 'introspect') {
      is<Equal<typeof step, Exchange>>();
      const response: FetchResponse = await fetch(step.url, { method: step.method, headers: step.headers, body: step.body });
      console.log(step.timeLeft, step.deadline, step.isUsed, step.isRetry);
      const failure: Failure = 'timed_out';
      step = response.status === 200 ? step.reply({ status: 200, headers: likes[0], body: '' }) : step.fail(failure);
    } else {
      is<Equal<typeof step, Wait>>();
      step.onReady((ready) => is<Equal<typeof ready, boolean>>());
      await step.ready();
      step = step.resume();
    }
  }
  {
    const abandoned = introspector.begin(request);
    if (abandoned.kind === 'wait') abandoned[Symbol.dispose]();
    if (abandoned.kind === 'introspect') abandoned.abandon();
  }
  // @ts-expect-error no such failure
  if (step.kind === 'introspect') step.fail('tired');

  const deny: Deny = introspector.internal(true);
  introspector.replaceConsumers(consumers);
  introspector.replaceConfig(config);
  introspector.replaceFile('a.json');
  const forgotten: boolean = introspector.forget('abc');
  introspector.forgetAll();
  const snapshot: Snapshot = introspector.snapshot();
  const counted: number[] = [snapshot.hits, snapshot.decisions.allow, snapshot.decisions.token_missing, ...snapshot.latency];
  // @ts-expect-error no such reason
  void snapshot.decisions.token_lost;
  const text: string = introspector.metrics();
  const warnings: Problem[] = introspector.warnings;
  const known: Consumer[] = introspector.consumers;
  console.log(deny.status, forgotten, counted, text, warnings, known, isManaged('X-Consumer-ID'), fromFiles, secret, agent);
  try {
    new Introspector('{');
  } catch (error) {
    if (error instanceof ConfigError) {
      is<Equal<typeof error.code, 'ERR_TOKENWARD_CONFIG'>>();
      for (const { path, message } of error.problems) console.log(path, message);
    }
    if (error instanceof StepError) is<Equal<typeof error.code, 'ERR_TOKENWARD_STEP'>>();
  }
}

const exclusions: Exclusion<IncomingMessage>[] = ['/health', /^\/a$/, (path, req) => path === req.url];
const expressOptions: ExpressOptions = {
  policy: (req) => (req.url === '/' ? policy : undefined),
  exclude: exclusions,
  onDeny: (deny, req, res) => void res.writeHead(deny.status).end(req.method),
};
const guard = tokenward(introspector, expressOptions);
createServer((req, res) => guard(req, res, () => res.end(req.tokenward?.consumer?.id)));
const app = express();
app.use(tokenward(introspector, { exclude: '/health' }));
app.use(tokenward<express.Request, express.Response>(introspector, { onDeny: (deny, req, res) => void res.status(deny.status).json(req.params) }));
app.use((req, res) => void res.json(req.tokenward?.claims));
const proxy = createProxyMiddleware({ target: 'http://127.0.0.1:9', ws: true, on: proxyEvents() });
app.use(proxy);
const upgradeOptions: UpgradeOptions = { policy, exclude: '/live', onDeny: (deny, req, socket) => void socket.end(deny.body) };
createServer(app).on('upgrade', guardUpgrade(introspector, proxy.upgrade, upgradeOptions));

const fastify = Fastify();
const fastifyOptions: FastifyOptions = {
  introspector,
  policy: (req) => (req.url === '/' ? policy : undefined),
  exclude: '/health',
  onDeny: (deny, request, reply) => reply.code(deny.status).send(request.id),
};
fastify.register(plugin, fastifyOptions);
// @ts-expect-error the introspector is required
fastify.register(plugin, {});
fastify.register(httpProxy, { upstream: 'http://127.0.0.1:9', websocket: true, ...proxyOptions });
fastify.get('/open', { config: { tokenward: false } }, async (request) => request.tokenward?.identity.type);
fastify.get('/admin', { config: { tokenward: { policy } } }, async (request) => {
  is<Equal<typeof request.tokenward, Allow | null>>();
  return null;
});

function forward(req: IncomingMessage, res: ServerResponse, allow: Allow): void {
  editRequest(req, allow);
  editResponse(res, allow);
  const lines: [string, string][] = forwardHeaders(req, allow, { keep: ['te'] });
  void fetch('http://127.0.0.1:9/', { headers: forwardHeaders(['A', 'b'], null) });
  res.setHeader('Cache-Control', makePrivate(res.getHeader('cache-control')));
  console.log(lines.flat(), unknownField, noEndpoint);
}
void go;
void forward;
