/** Middleware for Express, Connect and `node:http`. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Allow, Deny, Introspector, Policy } from './index.js';

declare module 'node:http' {
  interface IncomingMessage {
    /** The decision by which the request goes on; undefined where nobody was asked (a path that is excluded). */
    tokenward?: Allow | undefined;
  }
}

/**
 * Paths that are not authenticated: one path (`/health`), everything below one (`/public/*`), an expression, or a function. The first
 * three look at the path as received and never fit one with anything encoded, or with empty or dot segments.
 */
export type Exclusion<Request> = string | RegExp | ((path: string, request: Request) => boolean);

export interface Options<Request extends IncomingMessage = IncomingMessage, Response extends ServerResponse = ServerResponse> {
  /** The policy, or the one of a request. Defaults to the configuration's own. */
  policy?: Policy | ((request: Request) => Policy | undefined) | undefined;
  exclude?: Exclusion<Request> | readonly Exclusion<Request>[] | undefined;
  /** Answers in place of the usual refusal. If it fails, the usual one is sent; the request goes on in no case. */
  onDeny?: ((deny: Deny, request: Request, response: Response) => void | Promise<void>) | undefined;
}

/** A middleware that lets authenticated requests pass, edited, with the decision at `req.tokenward`, and answers others. */
export function tokenward<Request extends IncomingMessage = IncomingMessage, Response extends ServerResponse = ServerResponse>(
  introspector: Introspector,
  options?: Options<Request, Response>,
): (req: Request, res: Response, next: (error?: unknown) => void) => void;
