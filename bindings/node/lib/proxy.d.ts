/** For gateways that forward by themselves: `http-proxy-middleware`, undici, fetch, and WebSockets. */

import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Allow, Deny, Introspector, Policy } from './index.js';
import type { Exclusion } from './express.js';

/** Edits a request of Node's in place as the decision says: `rawHeaders`, `headers`, `url`, and trailers once they come. */
export function editRequest(req: IncomingMessage, allow: Allow): void;

/** Sees to it that every 2xx answer has what the decision wants (`Cache-Control: private`). Before the head is written. */
export function editResponse(res: ServerResponse, allow: Allow): void;

/**
 * The lines for an upstream, edited, without those of the connection (RFC 9110 §7.6.1) and those that it lists. For undici's `headers`
 * take them flat, for `fetch` as they are. `keep` names headers of the connection that stay. Where nobody was asked (a path that is
 * excluded) `allow` is `null`: nothing is set then, and what only Tokenward may set is removed all the same.
 */
export function forwardHeaders(
  request: IncomingMessage | { readonly rawHeaders: readonly string[] } | readonly string[],
  allow: Allow | null,
  options?: { keep?: readonly string[] | undefined },
): [name: string, value: string][];

/** `Cache-Control` for one client alone: other directives stay. */
export function makePrivate(value: string | number | readonly string[] | undefined | null): string;

/**
 * Handlers for `http-proxy-middleware`, `createProxyMiddleware({ target, on: proxyEvents() })`, behind the middleware of
 * `tokenward/express` and `guardUpgrade`: lines of one name stay apart, and nothing that came in between changes them.
 */
export function proxyEvents(): {
  proxyReq: (proxyReq: ClientRequest, req: IncomingMessage) => void;
  proxyReqWs: (proxyReq: ClientRequest, req: IncomingMessage) => void;
};

export interface UpgradeOptions {
  /** The policy, or the one of a request. Defaults to the configuration's own. */
  policy?: Policy | ((request: IncomingMessage) => Policy | undefined) | undefined;
  exclude?: Exclusion<IncomingMessage> | readonly Exclusion<IncomingMessage>[] | undefined;
  /** Is told before the refusal is written, or writes its own and ends the socket. */
  onDeny?: ((deny: Deny, request: IncomingMessage, socket: Duplex) => void) | undefined;
}

/** A listener of a server's `upgrade`: what is authenticated goes on to `next`, edited, with the decision at `req.tokenward`. */
export function guardUpgrade(
  introspector: Introspector,
  next: (req: IncomingMessage, socket: Socket, head: Buffer) => void,
  options?: UpgradeOptions,
): (req: IncomingMessage, socket: Duplex, head: Buffer) => Promise<void>;
