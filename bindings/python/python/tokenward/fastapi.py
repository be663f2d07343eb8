"""A security dependency for FastAPI, which shows on the OpenAPI page.

    app = FastAPI()
    install(app, Introspector("tokenward.json"))

    @app.get("/orders")
    async def orders(caller: Annotated[Allow, Depends(require("orders:read"))]) -> ...:

With `tokenward.asgi.TokenwardMiddleware` around the application every request is decided there, and `require` holds the same token
against what a route wants; without it, `require` decides by itself.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, HTTPException
from fastapi.openapi.models import HTTPBearer
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response

from ._introspector import Introspector
from ._tokenward import Allow, Deny, Policy, _asgi_again, _asgi_scope
from .asgi import TokenwardMiddleware, _read, _replayed

__all__ = ["Denied", "install", "require"]


class Denied(HTTPException):
    """A refusal. With `install`, its answer is exactly Tokenward's; else FastAPI's with the same status and headers."""

    def __init__(self, deny: Deny) -> None:
        detail = json.loads(deny.body)["error_description"] if deny.body else str(deny.reason)
        headers = {name: value for name, value in deny.headers if name != "Content-Type"}
        super().__init__(deny.status, detail, headers)
        self.deny = deny


def install(app: FastAPI, introspector: Introspector, *, middleware: bool = False, **options: Any) -> None:
    """Lets `require` find the introspector, and answers its refusals as Tokenward words them.

    With `middleware`, every request is decided before it reaches a route; `options` are those of
    `tokenward.asgi.TokenwardMiddleware`.
    """
    app.state.tokenward = introspector
    app.add_exception_handler(Denied, _answer)
    if middleware:
        app.add_middleware(TokenwardMiddleware, introspector=introspector, **options)
    elif options:
        raise TypeError("options are for the middleware")


async def _answer(request: Request, error: Exception) -> Response:
    if not isinstance(error, Denied):
        raise error
    deny = error.deny
    return Response(deny.body or b"", deny.status, dict(deny.headers))


def require(*scopes: str, introspector: Introspector | None = None, **policy: Any) -> Requirement:
    """What a route wants of a token, for `Depends` or `Security`.

    `scopes` are alternatives, as in the setting `require.scopes`: the words of one are all needed (`require("read write", "admin")`).
    Those of `Security(require(), scopes=[...])` are all needed too, and so is what the document requires, unless `require=` is given.
    A route that wants scopes lets no anonymous caller in, unless `anonymous=` is given. `policy` are further settings of a policy
    (`realm`, `token_from`, ...).
    """
    return Requirement(scopes, introspector, policy)


class Requirement(SecurityBase):
    """A dependency that gives the `Allow`, or raises `Denied`."""

    def __init__(self, scopes: tuple[str, ...], introspector: Introspector | None, policy: dict[str, Any]) -> None:
        wanted = " or ".join(f"`{scope}`" for scope in scopes)
        self.model = HTTPBearer(
            description="An OAuth 2.0 access token" + (f" that grants {wanted}" if wanted else "")
        )
        self.scheme_name = "Tokenward"
        self._scopes = scopes
        self._introspector = introspector
        self._settings = policy
        self._policies: dict[tuple[Introspector, str], Policy] = {}

    async def __call__(
        self, connection: HTTPConnection, security_scopes: SecurityScopes, response: Response
    ) -> Allow:
        introspector = self._introspector or getattr(connection.app.state, "tokenward", None)
        if introspector is None:
            raise RuntimeError("no introspector: `tokenward.fastapi.install(app, introspector)` gives it one")
        policy = self._policy(introspector, security_scopes.scope_str)
        # A copy: the route's own is edited below, and what the client sent is needed for further requirements.
        scope = dict(connection.scope)
        before = scope.get("tokenward")
        body = b""
        step: Any
        if isinstance(before, Allow):
            step = _asgi_again(introspector, before, policy)
        else:
            # And of its lines, which are used after the endpoint was asked.
            scope["headers"] = [tuple(line) for line in scope["headers"]]
            step = introspector._asgi(scope, policy)
            if step is None:
                if isinstance(connection, Request):
                    body = await _body(connection, introspector.body_bytes)
                step = introspector._asgi(scope, policy, body)
        if isinstance(step, dict):
            decision = step["tokenward"]
        elif step is None:
            decision = introspector.internal()
        else:
            decision = await introspector.finish_async(step)
        if not isinstance(decision, Allow):
            raise Denied(decision)
        if not isinstance(before, Allow):
            _apply(connection, _asgi_scope(scope, decision, body))
            for name, value in decision.response_headers:
                response.headers[name] = value
        return decision

    def _policy(self, introspector: Introspector, further: str) -> Policy:
        key = (introspector, further)
        policy = self._policies.get(key)
        if policy is None:
            alternatives = [f"{scope} {further}".strip() for scope in self._scopes] or ([further] if further else [])
            settings = dict(self._settings)
            if alternatives:
                given = settings.get("require")
                required = json.loads(introspector._require()) if given is None else dict(given)
                required["scopes"] = _both(required.get("scopes"), alternatives)
                settings["require"] = required
                settings.setdefault("anonymous", "")
            policy = self._policies[key] = introspector.policy(settings)
        return policy


def _both(first: list[str] | None, second: list[str]) -> list[str]:
    """Alternatives that hold one of each."""
    pairs = ((one.split(" ") + other.split(" ")) for one in first or [""] for other in second)
    return [" ".join(dict.fromkeys(word for word in words if word)) for words in pairs]


async def _body(request: Request, limit: int) -> bytes:
    """As much of the body as is looked at; the route reads all of it all the same."""
    form = getattr(request, "_form", None)
    if form is not None:  # FastAPI has parsed it, and keeps nothing else
        return urlencode([(name, value) for name, value in form.multi_items() if isinstance(value, str)]).encode()
    if hasattr(request, "_body"):
        return await request.body()
    read = await _read(request.receive, limit)
    if read is None:
        raise ClientDisconnect
    body, more = read
    request._receive = _replayed(body, more, request.receive)
    return body


def _apply(connection: HTTPConnection, scope: dict[str, Any]) -> None:
    """What the route sees from here on, and what Starlette has computed from what the client sent."""
    for name in ("headers", "query_string", "tokenward", "user", "auth"):
        connection.scope[name] = scope[name]
    for name in ("_headers", "_query_params", "_url"):
        if hasattr(connection, name):
            delattr(connection, name)
