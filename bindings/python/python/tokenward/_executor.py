"""The threads that make blocking calls for `authenticate_async`.

They are the package's own: asyncio's default executor is shared with name look-ups and files, and an authorization server that
hangs must not hold those up.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeAlias
from weakref import WeakSet

from ._tokenward import Allow, Deny, Introspect, Wait, _after_fork_in_child

Result: TypeAlias = "Allow | Deny | Wait | BaseException"

logger = logging.getLogger("tokenward")

IDLE = 10.0
"""Seconds after which a thread without work ends."""

_executors: WeakSet[Executor] = WeakSet()


class Executor:
    """At most `threads` threads, started as needed, and a queue of at most `queue` calls."""

    def __init__(self, threads: int, queue: int) -> None:
        self._threads = threads
        self._queue = queue
        self._begin()
        _executors.add(self)

    def _begin(self) -> None:
        self._jobs: deque[tuple[Introspect, Callable[[Result], None]]] = deque()
        self._change = threading.Condition()
        self._running: set[threading.Thread] = set()
        self._idle = 0
        self._over = False

    def submit(self, step: Introspect, done: Callable[[Result], None]) -> bool:
        """Makes the call on one of the threads, then calls `done` there; or says that there is no room."""
        with self._change:
            if self._over or len(self._jobs) >= self._queue:
                return False
            if self._idle <= len(self._jobs) and len(self._running) < self._threads:
                # A daemon: a call that hangs does not keep a program from ending for longer than its own time.
                thread = threading.Thread(target=self._work, name="tokenward", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more threads, or the interpreter is at its end
                    if not self._running:
                        return False
                else:
                    self._running.add(thread)
            self._jobs.append((step, done))
            self._change.notify()
        return True

    def _work(self) -> None:
        try:
            while self._next():
                pass
        finally:
            # A thread that ended in any other way must not keep its place either.
            with self._change:
                self._running.discard(threading.current_thread())

    def _next(self) -> bool:
        """Makes one call; or says that the thread is to end, which has no place any more then."""
        with self._change:
            self._idle += 1
            try:
                if not self._change.wait_for(lambda: self._jobs or self._over, IDLE) or self._over:
                    self._running.discard(threading.current_thread())
                    return False
            finally:
                self._idle -= 1
            step, done = self._jobs.popleft()
        try:
            done(_sent(step))
        except Exception as error:
            logger.error("whoever waited for a call raised %s", type(error).__name__)
        return True

    def stop(self) -> None:
        """Gives up what is queued, and waits for the calls under way, which have a deadline."""
        with self._change:
            self._over = True
            jobs, threads = list(self._jobs), list(self._running)
            self._jobs.clear()
            self._change.notify_all()
        for step, _ in jobs:
            step.close()
        for thread in threads:
            thread.join()


def _sent(step: Introspect) -> Result:
    try:
        result = step.send()
        while isinstance(result, Introspect):
            result = result.send()
        return result
    except BaseException as error:
        return error
    finally:
        step.close()


def _after_fork() -> None:
    _after_fork_in_child()
    for executor in list(_executors):
        # Its threads are the parent's, and so is whoever holds its lock.
        executor._begin()


def _at_exit() -> None:
    for executor in list(_executors):
        executor.stop()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
