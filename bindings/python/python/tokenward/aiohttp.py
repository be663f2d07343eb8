"""A transport over aiohttp.

    Introspector("tokenward.json", transport=tokenward.aiohttp.Transport())
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from weakref import WeakKeyDictionary

import aiohttp
from yarl import URL

from ._errors import CallFailed
from ._transport import Answer, Call, context_for

__all__ = ["Transport"]


class Transport:
    """Makes calls with one `aiohttp.ClientSession` for each event loop and process.

    `session` makes it (certificates, limits, proxies); default: one that verifies the endpoint by `tls_roots`, and takes no proxy from the
    environment.
    """

    def __init__(self, session: Callable[[], aiohttp.ClientSession] | None = None) -> None:
        self._make = session
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[int, aiohttp.ClientSession]] = (
            WeakKeyDictionary()
        )

    def _session(self, url: str, roots: str | None) -> aiohttp.ClientSession:
        loop, process = asyncio.get_running_loop(), os.getpid()
        owner, session = self._sessions.get(loop, (None, None))
        if session is None or session.closed or owner != process:
            session = self._new(url, roots)
            self._sessions[loop] = process, session
        return session

    def _new(self, url: str, roots: str | None) -> aiohttp.ClientSession:
        if self._make is not None:
            return self._make()
        connector = aiohttp.TCPConnector(ssl=context_for(url, roots), limit=0)
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)

    async def __call__(self, call: Call) -> Answer:
        # A retry goes over a new connection, where they are ours.
        if not call.is_retry or self._make is not None:
            return await self._send(self._session(call.url, call.tls_roots), call)
        async with self._new(call.url, call.tls_roots) as session:
            return await self._send(session, call)

    async def _send(self, session: aiohttp.ClientSession, call: Call) -> Answer:
        answered = False
        try:
            async with session.request(
                call.method,
                URL(call.url, encoded=True),
                headers=call.headers,
                data=call.body,
                timeout=aiohttp.ClientTimeout(total=call.timeout),
                allow_redirects=False,
                auto_decompress=False,
                skip_auto_headers=("User-Agent",),
            ) as response:
                answered = True
                body = bytearray()
                async for part in response.content.iter_any():
                    body += part
                    if len(body) > call.reply_bytes:
                        # What is left unread must not be taken for the next answer.
                        response.close()
                        raise CallFailed("too_long")
                return Answer(response.status, response.raw_headers, bytes(body))
        except (aiohttp.ClientError, asyncio.TimeoutError, TimeoutError, OSError) as error:
            # Without its cause: that holds the request.
            raise CallFailed(_failure(error, answered)) from None

    async def aclose(self) -> None:
        """Closes the connections of the running event loop."""
        owner, session = self._sessions.pop(asyncio.get_running_loop(), (None, None))
        if session is not None and owner == os.getpid():
            await session.close()


def _failure(error: BaseException, answered: bool) -> str:
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return "timed_out"
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError)):
        return "tls"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "dns"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "connect"
    if answered:
        return "cut_off"
    if isinstance(error, (aiohttp.ServerDisconnectedError, ConnectionError)):
        return "closed"
    if isinstance(error, aiohttp.ClientOSError):
        return "closed"
    return "protocol"
