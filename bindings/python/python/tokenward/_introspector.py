"""The introspector: the extension's, and what asyncio adds to it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from . import _tokenward
from ._errors import CallFailed
from ._executor import Executor, Result
from ._reason import Reason
from ._tokenward import Allow, Deny, Introspect, Policy, Request, Wait
from ._transport import Call, Transport

logger = logging.getLogger("tokenward")

Self = TypeVar("Self", bound="Introspector")


@dataclass(frozen=True)
class Snapshot:
    """The counters at a moment. All but the last four only grow."""

    hits: int
    """Requests answered from a remembered positive answer."""
    negative_hits: int
    """Requests answered from a remembered `active: false`."""
    misses: int
    """Requests that started an introspection."""
    waits: int
    """Requests that waited for another's introspection."""
    introspections: int
    """Calls to the endpoint, retries included."""
    values_left_out: int
    """Header values that were over `limits.header_bytes`."""
    bodies_not_searched: int
    """Request bodies that could have held a token and were too long or coded."""
    evictions: int
    """Cache entries pushed out by newer ones."""
    allowed: int
    """Requests allowed."""
    denied: Mapping[Reason, int]
    """Requests denied, by reason."""
    latency: list[int]
    """Calls by how long they took: one count for each of `latency_bounds_ms`, and one for those that took longer."""
    latency_bounds_ms: list[int]
    """Upper bounds of the latency histogram, in milliseconds."""
    latency_sum: float
    """Seconds that all calls took together."""
    entries: int
    """Positive cache entries."""
    negative_entries: int
    """Negative cache entries."""
    bytes: int
    """Bytes of both pools."""
    in_flight: int
    """Introspections under way."""


class Introspector(_tokenward.Introspector):
    """Decides about requests: one endpoint, its caches, its flights, and a directory of consumers.

    `config` is a mapping, JSON text, or the path of a JSON file or a Kong declarative file (`FILE#route=NAME` where that has
    several plugins); a document may have its consumers itself. `consumers` is an iterable of mappings (`id`, `username`,
    `custom_id`, `tags`, `groups`), or JSON text. Raises `ConfigError` with all errors, and warns with `ConfigWarning`.

    `transport` makes the calls of `authenticate_async`; without one, they are made by the blocking client on threads of the
    package's own, at most `threads` (32) with at most `queue` (1024) calls waiting for one. Beyond that, requests are refused as
    `overloaded`. The time in the queue counts against `timeout`.

    Any number of threads and event loops may use one. After a fork, the child begins with an empty cache and its own connections.
    """

    def __new__(
        cls: type[Self],
        config: Mapping[str, Any] | str | os.PathLike[str],
        consumers: Iterable[Mapping[str, Any]] | str | None = None,
        *,
        transport: Transport | None = None,
        threads: int = 32,
        queue: int = 1024,
    ) -> Self:
        if threads < 1 or queue < 1:
            raise ValueError("there is at least one thread, and room for one call")
        self = super().__new__(cls, config, consumers)
        self._transport = transport
        self._executor = Executor(threads, queue)
        self._tasks = set()
        return self

    _transport: Transport | None
    _executor: Executor
    _tasks: set[asyncio.Task[Allow | Deny | Wait]]

    @classmethod
    def from_kong(
        cls: type[Self],
        path: str | os.PathLike[str],
        *,
        route: str | None = None,
        service: str | None = None,
        **options: Any,
    ) -> Self:
        """Reads Kong's declarative configuration: its consumers, and the `config` of the plugin `oauth2-introspection`.

        Where the file has several of these, `route` or `service` names the one that is meant.
        """
        if route is not None and service is not None:
            raise ValueError("either a route or a service")
        file = os.fspath(path)
        if route is not None:
            file += f"#route={route}"
        elif service is not None:
            file += f"#service={service}"
        elif file.lstrip("\ufeff \t\r\n").startswith("{"):
            file = os.path.join(os.curdir, file)
        return cls(file, **options)

    async def authenticate_async(self, request: Request, policy: Policy | None = None) -> Allow | Deny:
        """Decides about a request on an event loop: a hit on the spot, else once the authorization server has answered.

        Waiting for another request's answer takes no thread. Cancelling it harms no other request: a call that others wait for goes on.
        """
        step = self.begin(request, policy)
        if isinstance(step, (Allow, Deny)):
            return step
        return await self.finish_async(step)

    async def finish_async(self, step: Allow | Deny | Introspect | Wait) -> Allow | Deny:
        """Goes on from a step that `begin` gave, to the decision."""
        while True:
            if isinstance(step, (Allow, Deny)):
                return step
            if isinstance(step, Wait):
                step = await _parked(step)
            elif self._transport is None:
                step = await self._on_a_thread(step)
            else:
                task = asyncio.get_running_loop().create_task(self._by_transport(step, self._transport))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                # Whoever goes away leaves the call to those who wait for its answer.
                step = await asyncio.shield(task)

    def finish(self, step: Allow | Deny | Introspect | Wait) -> Allow | Deny:
        """Goes on from a step that `begin` gave, to the decision, by blocking."""
        while not isinstance(step, (Allow, Deny)):
            step = step.send() if isinstance(step, Introspect) else step.wait()
        return step

    async def _on_a_thread(self, step: Introspect) -> Allow | Deny | Introspect | Wait:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Allow | Deny | Wait] = loop.create_future()

        def deliver(result: Result) -> None:
            if future.done():
                return
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

        def done(result: Result) -> None:
            try:
                loop.call_soon_threadsafe(deliver, result)
            except RuntimeError:  # the loop was closed: nobody waits
                pass

        if not self._executor.submit(step, done):
            return step.decline()
        return await future

    async def _by_transport(self, step: Introspect, transport: Transport) -> Allow | Deny | Wait:
        now: Allow | Deny | Introspect | Wait = step
        while isinstance(now, Introspect):
            with now as asking:
                now = await self._sent(asking, transport)
        return now

    async def _sent(self, step: Introspect, transport: Transport) -> Allow | Deny | Introspect | Wait:
        roots = self.tls_roots
        left = step.remaining()
        call = Call(
            step.method,
            step.url,
            step.headers,
            step.body,
            left,
            self.reply_bytes,
            None if roots is None else os.fspath(roots),
            step.is_retry,
        )
        try:
            status, headers, body = await asyncio.wait_for(transport(call), left)
            # In here too: what is no answer has failed like any other.
            return step.fail("too_long") if len(body) > self.reply_bytes else step.reply(status, headers, body)
        except (asyncio.TimeoutError, TimeoutError):
            return step.fail("timed_out")
        except CallFailed as error:
            return step.fail(error.failure)
        except Exception as error:
            logger.error("the transport raised %s", type(error).__name__)
            return step.fail("protocol")

    def snapshot(self) -> Snapshot:
        """The counters of now."""
        counters = self._counters()
        denied = {Reason(number): count for number, count in counters.pop("denied").items()}
        return Snapshot(denied=denied, **counters)


async def _parked(wait: Wait) -> Allow | Deny | Introspect | Wait:
    """Waits for another request's answer, without a thread."""
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    def ready(_: bool) -> None:
        try:
            loop.call_soon_threadsafe(wake)
        except RuntimeError:  # the loop was closed: nobody waits
            pass

    with wait:
        wait.on_ready(ready)
        timer = loop.call_later(wait.remaining(), wake)
        try:
            await woken
        finally:
            timer.cancel()
        return wait.resume()
