"""How a call to the introspection endpoint is made, where the package does not make it itself."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeAlias

Text: TypeAlias = "str | bytes"


class Call:
    """One call: what to send, and within which bounds. It holds the token and the client's credentials."""

    __slots__ = ("body", "headers", "is_retry", "method", "reply_bytes", "timeout", "tls_roots", "url")

    def __init__(
        self,
        method: str,
        url: str,
        headers: list[tuple[str, str]],
        body: bytes,
        timeout: float,
        reply_bytes: int,
        tls_roots: str | None,
        is_retry: bool = False,
    ) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        """All but `Host` and `Content-Length`."""
        self.body = body
        self.timeout = timeout
        """Seconds from connecting to the last byte of the answer."""
        self.reply_bytes = reply_bytes
        """Reading stops beyond this: the call failed with `too_long`."""
        self.tls_roots = tls_roots
        """A file of certificate authorities, or `None` for those of the system."""
        self.is_retry = is_retry
        """The attempt before failed with `connect` or `closed`: this one goes over a new connection. Those that are kept may all be dead."""

    def __repr__(self) -> str:
        return "<tokenward.Call>"


class Answer(NamedTuple):
    """The endpoint's answer, read to its end."""

    status: int
    headers: Iterable[tuple[Text, Text]]
    body: bytes

    def __repr__(self) -> str:
        return f"<tokenward.Answer {self.status}>"


class Transport(Protocol):
    """Makes calls on an event loop.

    Follows no redirect, takes no proxy from the environment, decodes no content coding, and reuses a connection only after the
    answer before was read to its end, and only in the process and event loop that opened it. Raises `CallFailed`.
    `tokenward.httpx` and `tokenward.aiohttp` have one each.
    """

    async def __call__(self, call: Call, /) -> Answer: ...


def context_for(url: str, roots: str | None) -> ssl.SSLContext:
    """What verifies the endpoint. One for plain HTTP trusts nobody: reading the system's certificates would hold the event loop up."""
    if url.startswith("http:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return ssl.create_default_context(cafile=roots)
