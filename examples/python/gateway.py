"""A reverse proxy on uvicorn that lets through what Tokenward allows.

    examples/python/run --config FILE --listen 127.0.0.1:8080 --upstream http://127.0.0.1:9000 [--admin 127.0.0.1:9100]

FILE is a Tokenward configuration in JSON with an extra member `consumers`, or a Kong declarative file (FILE#route=NAME or
FILE#service=NAME where it has several plugins). SIGHUP reads it again and keeps the cache.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import logging
import signal
import socket
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any
from urllib.parse import urlsplit

import httpcore
import uvicorn

from tokenward import ConfigError, Introspector
from tokenward.asgi import App, Receive, Scope, Send, TokenwardMiddleware

Lines = list[tuple[bytes, bytes]]

# Fields of a single connection (RFC 9110 7.6.1), whether or not `Connection` lists them.
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade".split()
)


def listed(headers: Lines) -> set[bytes]:
    """What the `Connection` lines list."""
    lines = [value for name, value in headers if name == b"connection"]
    return {name.strip().lower() for line in lines for name in line.split(b",")}


class Edge:
    """What belongs to the client's connection ends here, before the edits: `Connection: X-Consumer-ID` takes back nothing of ours."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("this gateway speaks HTTP alone")
        headers: Lines = scope["headers"]
        names = listed(headers)
        if scope["method"] == "CONNECT":
            await answer(send, 501, "This gateway opens no tunnels")
        elif any(name == b"host" or name.startswith(b"content-") for name in names):
            # What a decision rests on must not change behind it.
            await answer(send, 400, "Connection lists a field that is not of the connection")
        else:
            # A credential is read first, and dropped on the way to the upstream.
            drop = HOP_BY_HOP | (names - {b"authorization"})
            kept = [line for line in headers if line[0] not in drop]
            has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in headers)
            drop_later = names & {b"authorization"}
            scope = {**scope, "headers": kept, "gateway.has_body": has_body, "gateway.drop": drop_later}
            await self.app(scope, receive, send)


class Proxy:
    """Passes on what it gets."""

    def __init__(self, host: str, port: int) -> None:
        self.address = (b"http", host.encode(), port)
        # Servers close idle connections without a word, some after 5 s.
        self.pool = httpcore.AsyncConnectionPool(max_connections=None, keepalive_expiry=4.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scheme, host, port = self.address
        target: bytes = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        headers: Lines = [line for line in scope["headers"] if line[0] not in scope["gateway.drop"]]
        content: bytes | AsyncIterator[bytes] = b""
        if scope["gateway.has_body"]:
            content = body(receive)
            if not any(name == b"content-length" for name, _ in headers):
                headers = [*headers, (b"transfer-encoding", b"chunked")]
        request = httpcore.Request(
            scope["method"].encode(),
            httpcore.URL(scheme=scheme, host=host, port=port, target=target),
            headers=headers,
            content=content,
            extensions={"timeout": {"connect": 10.0, "pool": 10.0}},
        )
        begun = False
        try:
            response = await self.pool.handle_async_request(request)
            try:
                if response.status < 200:
                    raise httpcore.RemoteProtocolError("a protocol nobody asked for")
                lines: Lines = [(name.lower(), value) for name, value in response.headers]
                drop = HOP_BY_HOP | listed(lines)
                lines = [line for line in lines if line[0] not in drop]
                await send({"type": "http.response.start", "status": response.status, "headers": lines})
                begun = True
                async for part in response.aiter_stream():
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            finally:
                await response.aclose()
        except ClientGone:
            pass
        except (OSError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
            if begun:
                raise  # an answer that was begun and cannot be ended must not look whole
            await answer(send, 502, "The upstream gave no answer")


class ClientGone(Exception):
    """The client went away in the middle of its request."""


async def body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        if part := message.get("body"):
            yield part
        if not message.get("more_body"):
            return


async def answer(send: Send, status: int, description: str) -> None:
    """An answer of the gateway's own, in the form of Tokenward's."""
    error = "invalid_request" if status < 500 else "server_error"
    text = f'{{"error":"{error}","error_description":"{description}"}}'.encode()
    headers: Lines = [
        (b"content-type", b"application/json; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(text)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


class Metrics:
    """`/metrics` for Prometheus."""

    def __init__(self, introspector: Introspector) -> None:
        self.introspector = introspector

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/metrics":
            await answer(send, 404, "Metrics are at /metrics")
            return
        text = self.introspector.metrics().encode()
        headers: Lines = [
            (b"content-type", b"text/plain; version=0.0.4"),
            (b"content-length", str(len(text)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})


class Server(uvicorn.Server):
    """uvicorn, told when to stop by the program instead of by signals, and telling when it accepts."""

    def __init__(self, app: App, on_ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",  # the strict one: what can be read in two ways is refused
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                date_header=False,
                interface="asgi3",
            )
        )
        self.on_ready = on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_ready()


class Listener(socket.socket):
    """Without a descriptor for a connection, asyncio tries as often as its backlog says before it goes on, and logs each time: seconds in
    which nobody is served. Here it tries once, and again when it takes up the socket after a second."""

    _full_until = 0.0

    def accept(self) -> tuple[socket.socket, Any]:
        if time.monotonic() < self._full_until:
            raise BlockingIOError
        try:
            return super().accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._full_until = time.monotonic() + 0.5
            raise


def bound(address: str) -> tuple[socket.socket, str]:
    host, _, port = address.rpartition(":")
    accepting = Listener(fileno=socket.create_server((host.strip("[]"), int(port)), backlog=1024).detach())
    name: Any = accepting.getsockname()
    return accepting, f"http://{host}:{name[1]}"


async def serve(options: argparse.Namespace, introspector: Introspector) -> None:
    upstream = urlsplit(str(options.upstream))
    if upstream.scheme != "http" or not upstream.hostname or upstream.path not in ("", "/"):
        raise SystemExit(f"--upstream: `{options.upstream}` is not of the form http://HOST:PORT")
    proxy = Proxy(upstream.hostname, upstream.port or 80)

    def reload() -> None:
        try:
            introspector.replace_config(options.config)
        except (ConfigError, RuntimeError) as error:
            print(f"error: nothing was changed\n{error}", file=sys.stderr, flush=True)

    accepting, url = bound(options.listen)
    app = Edge(TokenwardMiddleware(proxy, introspector))
    servers = [(Server(app, lambda: print(f"ready {url}", flush=True)), accepting)]
    if options.admin:
        accepting, admin = bound(options.admin)
        say = f"metrics at {admin}/metrics"
        servers.append((Server(Metrics(introspector), lambda: print(say, file=sys.stderr, flush=True)), accepting))

    def stop() -> None:
        for server, _ in servers:
            server.should_exit = True

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reload)
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop)
    await asyncio.gather(*(server.serve([accepting]) for server, accepting in servers))


def say_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="FILE")
    parser.add_argument("--listen", required=True, metavar="ADDR")
    parser.add_argument("--upstream", required=True, metavar="URL")
    parser.add_argument("--admin", metavar="ADDR", help="serves /metrics for Prometheus")
    options = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    warnings.showwarning = say_warning
    try:
        introspector = Introspector(options.config)
    except (ConfigError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    asyncio.run(serve(options, introspector))
    return 0


if __name__ == "__main__":
    sys.exit(main())
