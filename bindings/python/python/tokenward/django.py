"""Middleware for Django, on WSGI and ASGI.

    MIDDLEWARE = ["tokenward.django.TokenwardMiddleware", ...]
    TOKENWARD = {"CONFIG": BASE_DIR / "tokenward.json", "EXCLUDE": ["/health"]}

Views find the decision at `request.tokenward`. `request.headers` and `request.META` are those of the client without the credential and
without anything that only Tokenward may set, and with `X-Consumer-*` and `X-Credential-*` of the caller.

Settings in `TOKENWARD`: `CONFIG` (a mapping, JSON text or a path) and `CONSUMERS`, or `INTROSPECTOR` (an introspector, or the dotted
path of one); `POLICY` (settings of a further policy); `EXCLUDE` (paths that pass without a token); `ON_DENY` (a function of request and
refusal, or its dotted path, that gives a response in place of the standard refusal, or `None`).
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.module_loading import import_string

from ._introspector import Introspector
from ._paths import Paths
from ._private import with_private
from ._tokenward import Allow, Deny, Introspect, Wait, _wsgi_strip
from .wsgi import allow

__all__ = ["TokenwardMiddleware", "introspector"]

logger = logging.getLogger("tokenward")

_lock = threading.Lock()
_introspector: Introspector | None = None

KNOWN = frozenset({"CONFIG", "CONSUMERS", "INTROSPECTOR", "POLICY", "EXCLUDE", "ON_DENY"})


def introspector() -> Introspector:
    """The introspector of the settings, made at the first call."""
    global _introspector
    with _lock:
        if _introspector is None:
            options = _settings()
            given = options.get("INTROSPECTOR")
            if given is not None:
                _introspector = import_string(given) if isinstance(given, str) else given
            else:
                _introspector = Introspector(options["CONFIG"], options.get("CONSUMERS"))
        return _introspector


def _settings() -> dict[str, Any]:
    options = getattr(settings, "TOKENWARD", None)
    if not isinstance(options, dict) or ("CONFIG" in options) == ("INTROSPECTOR" in options):
        raise ImproperlyConfigured("TOKENWARD is a dict with either CONFIG or INTROSPECTOR")
    if unknown := options.keys() - KNOWN:
        raise ImproperlyConfigured(f"TOKENWARD has unknown members: {', '.join(sorted(map(str, unknown)))}")
    return options


class TokenwardMiddleware:
    """Lets requests through that the introspector allows, and answers the others."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._respond = get_response
        options = _settings()
        self._introspector = introspector()
        policy = options.get("POLICY")
        self._policy = None if policy is None else self._introspector.policy(policy)
        self._exclude = Paths(options.get("EXCLUDE", ()))
        on_deny = options.get("ON_DENY")
        self._on_deny: Callable[[HttpRequest, Deny], Any] | None = (
            import_string(on_deny) if isinstance(on_deny, str) else on_deny
        )
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._answer_async(request)
        step = self._begin(request)
        if step is None:
            return self._respond(request)
        if isinstance(step, (Introspect, Wait)):
            try:
                step = self._introspector.finish(step)
            except Exception as error:
                step = self._failed(request, error)
        refusal, private = self._concluded(request, step)
        if refusal is not None:
            return refusal
        return _private(self._respond(request), private)

    async def _answer_async(self, request: HttpRequest) -> HttpResponseBase:
        step = self._begin(request)
        if step is None:
            response: HttpResponseBase = await self._respond(request)
            return response
        if isinstance(step, (Introspect, Wait)):
            try:
                step = await self._introspector.finish_async(step)
            except Exception as error:
                step = self._failed(request, error)
        refusal, private = self._concluded(request, step)
        if refusal is not None:
            return refusal
        return _private(await self._respond(request), private)

    def _begin(self, request: HttpRequest) -> Allow | Deny | Introspect | Wait | None:
        """The first step; `None` for what passes without a token."""
        try:
            if self._exclude and self._exclude.passes(request.META, request.path):
                _wsgi_strip(request.META)
                _forget(request)
                return None
            step = self._introspector._wsgi(request.META, self._policy)
            if step is None:
                step = self._introspector._wsgi(request.META, self._policy, self._body(request))
                if step is None:
                    raise RuntimeError("the body was given")
            return step
        except Exception as error:
            return self._failed(request, error)

    def _body(self, request: HttpRequest) -> bytes:
        limit = self._introspector.body_bytes
        try:
            length = int(request.META.get("CONTENT_LENGTH") or 0)
        except ValueError:
            length = 0
        # A longer one is left to whoever reads it; that it is longer is all that counts.
        return bytes(limit + 1) if length > limit else request.body

    def _concluded(
        self, request: HttpRequest, step: Allow | Deny | Introspect | Wait
    ) -> tuple[HttpResponseBase | None, list[tuple[str, str]]]:
        if isinstance(step, Allow):
            try:
                _apply(request, step)
                return None, step.response_headers
            except Exception as error:
                step = self._failed(request, error)
        if not isinstance(step, Deny):
            step = self._failed(request, RuntimeError())
        answer = None
        if self._on_deny is not None:
            _wsgi_strip(request.META)
            _forget(request)
            answer = self._on_deny(request, step)
        return (_refusal(step) if answer is None else answer), []

    def _failed(self, request: HttpRequest, error: Exception) -> Deny:
        # Its text may quote the request.
        logger.error("a request could not be decided: %s", type(error).__name__)
        return self._introspector.internal(head=request.method == "HEAD")


def _apply(request: HttpRequest, decision: Allow) -> None:
    allow(request.META, decision)
    if decision.body is not None:
        # Where Django keeps a body that was read, what is read of it, and what it was parsed to.
        request._body = decision.body
        request._stream = io.BytesIO(decision.body)
        for name in ("_post", "_files"):
            request.__dict__.pop(name, None)
        request.META.pop("wsgi.input", None)
    _forget(request)
    request.tokenward = decision


def _forget(request: HttpRequest) -> None:
    """What Django has computed from what the client sent."""
    for name in ("headers", "GET"):
        request.__dict__.pop(name, None)


def _refusal(deny: Deny) -> HttpResponse:
    response = HttpResponse(deny.body or b"", status=deny.status)
    for name, value in deny.headers:
        response[name] = value
    return response


def _private(response: HttpResponseBase, headers: list[tuple[str, str]]) -> HttpResponseBase:
    if 200 <= response.status_code < 300:
        for name, value in with_private(response.items(), headers):
            if name in dict(headers):
                response[name] = value
    return response
