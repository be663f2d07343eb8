/** A plugin for Fastify 5, and options for `@fastify/http-proxy`. */

import type { FastifyPluginCallback, FastifyReply, FastifyRequest } from 'fastify';
import type { IncomingHttpHeaders } from 'node:http';
import type { Allow, Deny, Introspector, Policy } from './index.js';
import type { Exclusion } from './express.js';

declare module 'fastify' {
  interface FastifyRequest {
    /** The decision by which the request goes on; `null` where nobody was asked (a path or route that is excluded). */
    tokenward: Allow | null;
  }

  interface FastifyContextConfig {
    /** `false`: the route is not authenticated. Or a policy of its own. */
    tokenward?: false | { policy?: Policy | undefined } | undefined;
  }
}

export interface Options {
  introspector: Introspector;
  /** The policy, or the one of a request. Defaults to the configuration's own. */
  policy?: Policy | ((request: FastifyRequest['raw']) => Policy | undefined) | undefined;
  exclude?: Exclusion<FastifyRequest['raw']> | readonly Exclusion<FastifyRequest['raw']>[] | undefined;
  /** Answers in place of the usual refusal. If it fails, the usual one is sent; the request goes on in no case. */
  onDeny?: ((deny: Deny, request: FastifyRequest, reply: FastifyReply) => unknown) | undefined;
}

/** Authenticates every request of the instance that registers it, and of those below. Register it before others. */
export const tokenward: FastifyPluginCallback<Options>;

/** `app.register(httpProxy, { upstream, ...proxyOptions })`: lines of one name stay apart, also on the way of a WebSocket. */
export const proxyOptions: {
  readonly replyOptions: {
    readonly rewriteRequestHeaders: (request: Decided, headers: IncomingHttpHeaders) => IncomingHttpHeaders;
  };
  readonly wsClientOptions: {
    readonly rewriteRequestHeaders: (headers: IncomingHttpHeaders, request: Decided) => IncomingHttpHeaders;
    // Its types do not have the function that its documentation has; they want something in common.
    readonly queryString?: never;
  };
};

/** A request of whichever server that was decided about. */
export interface Decided {
  readonly headers: IncomingHttpHeaders;
  readonly tokenward?: Allow | null | undefined;
}
