"""A transport over httpx.

    Introspector("tokenward.json", transport=tokenward.httpx.Transport())
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from weakref import WeakKeyDictionary

import httpx

from ._errors import CallFailed
from ._transport import Answer, Call, context_for

__all__ = ["Transport"]


class Transport:
    """Makes calls with one `httpx.AsyncClient` for each event loop and process.

    `client` makes it (certificates, limits, proxies); default: one that verifies the endpoint by `tls_roots`, and takes no proxy from the
    environment.
    """

    def __init__(self, client: Callable[[], httpx.AsyncClient] | None = None) -> None:
        self._make = client
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[int, httpx.AsyncClient]] = WeakKeyDictionary()

    def _client(self, url: str, roots: str | None) -> httpx.AsyncClient:
        loop, process = asyncio.get_running_loop(), os.getpid()
        owner, client = self._clients.get(loop, (None, None))
        if client is None or owner != process:
            client = self._new(url, roots)
            self._clients[loop] = process, client
        return client

    def _new(self, url: str, roots: str | None) -> httpx.AsyncClient:
        if self._make is not None:
            return self._make()
        context = context_for(url, roots)
        # No cookie of one answer goes with the next question.
        jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(verify=context, trust_env=False, limits=limits, cookies=jar)

    async def __call__(self, call: Call) -> Answer:
        # A retry goes over a new connection, where they are ours.
        if not call.is_retry or self._make is not None:
            return await self._send(self._client(call.url, call.tls_roots), call)
        async with self._new(call.url, call.tls_roots) as client:
            return await self._send(client, call)

    async def _send(self, client: httpx.AsyncClient, call: Call) -> Answer:
        answered = False
        try:
            request = client.build_request(
                call.method, call.url, headers=call.headers, content=call.body, timeout=call.timeout
            )
            response = await client.send(request, stream=True, follow_redirects=False, auth=None)
            answered = True
            body = bytearray()
            try:
                async for part in response.aiter_raw():
                    body += part
                    if len(body) > call.reply_bytes:
                        raise CallFailed("too_long")
            finally:
                await response.aclose()
            return Answer(response.status_code, response.headers.raw, bytes(body))
        except httpx.HTTPError as error:
            # Without its cause: that holds the request.
            raise CallFailed(_failure(error, answered)) from None

    async def aclose(self) -> None:
        """Closes the connections of the running event loop."""
        owner, client = self._clients.pop(asyncio.get_running_loop(), (None, None))
        if client is not None and owner == os.getpid():
            await client.aclose()


def _failure(error: httpx.HTTPError, answered: bool) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return "tls"
        if type(cause).__name__ == "gaierror":
            return "dns"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.TimeoutException):
        return "timed_out"
    if isinstance(error, httpx.ConnectError):
        return "connect"
    if answered:
        return "cut_off"
    if isinstance(error, httpx.RemoteProtocolError):
        return "closed" if "disconnected" in str(error) else "protocol"
    return "closed" if isinstance(error, httpx.NetworkError) else "protocol"
