"""Middleware for every ASGI application and server, without a framework.

    app = TokenwardMiddleware(app, Introspector("tokenward.json"))
    app.add_middleware(TokenwardMiddleware, introspector=Introspector("tokenward.json"))  # Starlette, FastAPI

The application finds the decision at `scope["tokenward"]`, and the caller where Starlette's users expect it, at `request.user` and
`request.auth`. Its headers are those of the client without the credential and without anything that only Tokenward may set, and
with `X-Consumer-*` and `X-Credential-*` of the caller.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, TypeAlias

from ._introspector import Introspector
from ._paths import Paths
from ._private import with_private
from ._tokenward import Allow, AsgiGate, Deny, Policy, _asgi_scope, _asgi_stripped

__all__ = ["TokenwardMiddleware"]

Scope: TypeAlias = "MutableMapping[str, Any]"
Message: TypeAlias = "MutableMapping[str, Any]"
Receive: TypeAlias = "Callable[[], Awaitable[Message]]"
Send: TypeAlias = "Callable[[Message], Awaitable[None]]"
App: TypeAlias = "Callable[[Scope, Receive, Send], Awaitable[None]]"
OnDeny: TypeAlias = "Callable[[Scope, Deny], App | None | Awaitable[App | None]]"

logger = logging.getLogger("tokenward")


class TokenwardMiddleware(AsgiGate):
    """Lets requests through to `app` that `introspector` allows, and answers the others.

    `policy` is a policy of the introspector's, or its settings; default: the document's own. `exclude` are paths that pass without
    a token (`/health`, `/static/*`; decoded, with the root path): what only Tokenward may set is removed from them all the same.
    `on_deny(scope, deny)` may give an ASGI application (a Starlette response, say) that answers in place of the standard refusal, or
    `None`; it may be asynchronous.

    Works on `http` and `websocket`; `lifespan` passes untouched. A body is read only where the policy looks for a token in it.
    """

    def __init__(
        self,
        app: App,
        introspector: Introspector,
        *,
        policy: Policy | Mapping[str, Any] | None = None,
        exclude: Iterable[str] = (),
        on_deny: OnDeny | None = None,
    ) -> None:
        super().__init__()
        self._begin = introspector._asgi
        self._policy = policy if policy is None or isinstance(policy, Policy) else introspector.policy(policy)
        self._exclude = Paths(exclude)
        self._on_deny = on_deny
        self._set_up(app, introspector, self._policy, self._exclude.exact, self._exclude.prefixes)
        # Servers tell ASGI 3 by a coroutine function at this attribute; a call goes by the class, which is the gate's.
        setattr(self, "__call__", self._coroutine)  # noqa: B010

    async def _coroutine(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self(scope, receive, send)

    async def _beside(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self.app(scope, receive, send)
        elif kind != "http" and kind != "websocket":
            raise RuntimeError("Tokenward lets only http, websocket and lifespan through")
        elif scope["path"] in self._exclude:
            await self.app(_asgi_stripped(scope), receive, send)
        else:
            try:
                outcome = self._begin(scope, self._policy)
            except Exception as error:
                outcome = self._failed(scope, error)
            if type(outcome) is dict:
                await self.app(outcome, receive, send)
            else:
                await self._go_on(scope, receive, send, outcome)

    async def _go_on(self, scope: Scope, receive: Receive, send: Send, outcome: Any) -> None:
        body = None
        try:
            if outcome is None:
                read = await _read(receive, self.introspector.body_bytes)
                if read is None:
                    return  # the client went away
                body, more = read
                receive = _replayed(body, more, receive)
                outcome = self._begin(scope, self._policy, body)
            if type(outcome) is not dict:
                decision = await self.introspector.finish_async(outcome)
                if isinstance(decision, Allow):
                    outcome = _asgi_scope(scope, decision, body)
                    if decision.body is not None:
                        receive = _replayed(decision.body, False, receive)
                    if decision.response_headers:
                        send = _adding(decision.response_headers, send)
                else:
                    outcome = decision
        except Exception as error:
            outcome = self._failed(scope, error)
        if type(outcome) is dict:
            await self.app(outcome, receive, send)
        else:
            await self._refuse(scope, receive, send, outcome)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, deny: Deny) -> None:
        answer = None
        if self._on_deny is not None:
            try:
                scope = _asgi_stripped(scope)
            except Exception:  # which is why it was refused
                scope = {**scope, "headers": []}
            given = self._on_deny(scope, deny)
            answer = await given if inspect.isawaitable(given) else given
        if answer is not None:
            await answer(scope, receive, send)
            return
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in deny.headers]
        if deny.body is not None:
            headers.append((b"content-length", str(len(deny.body)).encode("ascii")))
        prefix = "http.response"
        if scope["type"] == "websocket":
            if (await receive())["type"] != "websocket.connect":
                return
            prefix = "websocket.http.response"
            if prefix not in (scope.get("extensions") or {}):
                await send({"type": "websocket.close", "code": 1008, "reason": str(deny.reason)})
                return
        await send({"type": f"{prefix}.start", "status": deny.status, "headers": headers})
        await send({"type": f"{prefix}.body", "body": deny.body or b""})

    def _failed(self, scope: Scope, error: Exception) -> Deny:
        # Its text may quote the request.
        logger.error("a request could not be decided: %s", type(error).__name__)
        deny: Deny = self.introspector.internal(head=scope.get("method") == "HEAD")
        return deny


async def _read(receive: Receive, limit: int) -> tuple[bytes, bool] | None:
    """The body up to a little more than the limit, and whether there is more of it. `None` if the client went away."""
    parts: list[bytes] = []
    length = 0
    while length <= limit:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part = message.get("body", b"")
        parts.append(part)
        length += len(part)
        if not message.get("more_body", False):
            return b"".join(parts), False
    return b"".join(parts), True


def _replayed(body: bytes, more: bool, receive: Receive) -> Receive:
    is_first = True

    async def replay() -> Message:
        nonlocal is_first
        if is_first:
            is_first = False
            return {"type": "http.request", "body": body, "more_body": more}
        return await receive()

    return replay


def _adding(headers: list[tuple[str, str]], send: Send) -> Send:
    """Adds headers to an answer of success."""

    async def add(message: Message) -> None:
        if message["type"] == "http.response.start" and 200 <= message["status"] < 300:
            lines = [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in message.get("headers", ())]
            lines = with_private(lines, headers)
            message = {**message, "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in lines]}
        await send(message)

    return add
