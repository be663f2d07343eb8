"""Middleware for every WSGI application and server: Flask, Pyramid, Bottle, gunicorn, uWSGI, mod_wsgi.

    app.wsgi_app = TokenwardMiddleware(app.wsgi_app, Introspector("tokenward.json"))  # Flask

The application finds the decision at `environ["tokenward"]`, and the consumer's username (else its custom id, else its id) at
`REMOTE_USER`. `HTTP_X_CONSUMER_*`, `HTTP_X_CREDENTIAL_*` and `HTTP_X_ANONYMOUS_CONSUMER` are what Tokenward says, whatever the client
sent in whichever spelling.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, TypeAlias

from ._introspector import Introspector
from ._paths import Paths
from ._private import with_private
from ._tokenward import Allow, Deny, Policy, _wsgi_apply, _wsgi_strip

__all__ = ["TokenwardMiddleware"]

Environ: TypeAlias = "dict[str, Any]"
StartResponse: TypeAlias = "Callable[..., Callable[[bytes], object]]"
App: TypeAlias = "Callable[[Environ, StartResponse], Iterable[bytes]]"
OnDeny: TypeAlias = "Callable[[Environ, Deny], App | None]"

logger = logging.getLogger("tokenward")


class TokenwardMiddleware:
    """Lets requests through to `app` that `introspector` allows, and answers the others.

    `policy` is a policy of the introspector's, or its settings; default: the document's own. `exclude` are paths that pass without
    a token (`/health`, `/static/*`; decoded, with `SCRIPT_NAME`): what only Tokenward may set is removed from them all the same.
    `on_deny(environ, deny)` may give a WSGI application that answers in place of the standard refusal, or `None`.

    A miss blocks its thread for `timeout` at most. A body is read only where the policy looks for a token in it.
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
        self.app = app
        self.introspector = introspector
        self._policy = policy if policy is None or isinstance(policy, Policy) else introspector.policy(policy)
        # Paths are decoded as Latin-1 here (PEP 3333).
        self._exclude = Paths([path.encode().decode("latin-1") for path in _each(exclude)]) or None
        self._on_deny = on_deny

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if self._exclude is not None:
            path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
            if self._exclude.passes(environ, path):
                _wsgi_strip(environ)
                return self.app(environ, start_response)
        try:
            decision = self._decide(environ)
            if isinstance(decision, Allow):
                allow(environ, decision)
                if decision.response_headers:
                    start_response = _adding(decision.response_headers, start_response)
        except Exception as error:
            # Its text may quote the request.
            logger.error("a request could not be decided: %s", type(error).__name__)
            decision = self.introspector.internal(head=environ.get("REQUEST_METHOD") == "HEAD")
        if isinstance(decision, Allow):
            return self.app(environ, start_response)
        if self._on_deny is not None:
            _wsgi_strip(environ)
            answer = self._on_deny(environ, decision)
            if answer is not None:
                return answer(environ, start_response)
        body = decision.body
        headers = decision.headers
        if body is not None:
            headers.append(("Content-Length", str(len(body))))
        start_response(f"{decision.status} {HTTPStatus(decision.status).phrase}", headers)
        return [] if body is None else [body]

    def _decide(self, environ: Environ) -> Allow | Deny:
        step = self.introspector._wsgi(environ, self._policy)
        if step is None:
            body, rest = _read(environ, self.introspector.body_bytes)
            environ["wsgi.input"] = _Body(body, rest)
            step = self.introspector._wsgi(environ, self._policy, body)
            if step is None:
                raise RuntimeError("the body was given")
        return self.introspector.finish(step)


def _each(paths: Iterable[str]) -> Iterable[str]:
    if isinstance(paths, str):
        raise TypeError("the paths that are excluded are an iterable of strings")
    return paths


def allow(environ: Environ, decision: Allow) -> None:
    """Applies an allow to the environment."""
    _wsgi_apply(environ, decision)
    if decision.body is not None:
        environ["wsgi.input"] = io.BytesIO(decision.body)
        environ["CONTENT_LENGTH"] = str(len(decision.body))
        # Both kinds of framing at once would be two bodies to two readers.
        environ.pop("HTTP_TRANSFER_ENCODING", None)
    environ["tokenward"] = decision
    # Whoever the server took the caller for.
    environ.pop("REMOTE_USER", None)
    environ.pop("AUTH_TYPE", None)
    if decision.identity.kind == "consumer" and (consumer := decision.identity.consumer) is not None:
        name = consumer.username or consumer.custom_id or consumer.id
        environ["REMOTE_USER"] = name.encode().decode("latin-1")
        environ["AUTH_TYPE"] = "Bearer"


def _read(environ: Environ, limit: int) -> tuple[bytes, Any]:
    """The body up to one byte beyond the limit, and where the rest of it comes from."""
    stream = environ["wsgi.input"]
    try:
        left = int(environ.get("CONTENT_LENGTH") or -1)
    except ValueError:
        left = -1
    if left < 0 and not environ.get("wsgi.input_terminated"):
        return b"", stream  # the end of such a body cannot be known
    want = limit + 1 if left < 0 else min(left, limit + 1)
    parts: list[bytes] = []
    while want > 0:
        part = stream.read(want)
        if not part:
            if left >= 0:
                # What arrived must not pass for the whole.
                raise ConnectionError("the body ended before its length")
            break
        parts.append(part)
        want -= len(part)
    return b"".join(parts), stream


class _Body(io.RawIOBase):
    """What was read, and then the rest."""

    def __init__(self, read: bytes, rest: Any) -> None:
        self._read = io.BytesIO(read)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            rest: bytes = self._rest.read()
            return self._read.read() + rest
        part = self._read.read(size)
        if part or size == 0:
            return part
        further: bytes = self._rest.read(size)
        return further


def _adding(headers: list[tuple[str, str]], start_response: StartResponse) -> StartResponse:
    """Adds headers to an answer of success."""

    def start(status: str, lines: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:
        return start_response(status, with_private(lines, headers) if status.startswith("2") else lines, *rest)

    return start
