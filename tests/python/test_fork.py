"""After a fork: own connections, own threads, nobody left waiting."""

import asyncio
import os
import sys
import threading
import time
import traceback

import pytest
from conftest import CONSUMERS

import tokenward.httpx
from tokenward import Allow, Introspector, Request

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def bearer(token):
    return Request("GET", "/", [("Authorization", f"Bearer {token}")])


def in_children(number, what, within=15):
    """Runs `what(index)` in as many children; fails if one raises or does not end in time."""
    children = []
    for index in range(number):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                what(index)
                code = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        children.append(pid)
    until = time.monotonic() + within
    failed = []
    for pid in children:
        while True:
            done, code = os.waitpid(pid, os.WNOHANG)
            if done:
                failed += [code] if code else []
                break
            if time.monotonic() > until:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                failed.append("hangs")
                break
            time.sleep(0.01)
    assert failed == []


def test_children_of_a_warm_parent_have_connections_of_their_own(endpoint):
    introspector = Introspector(endpoint.config, CONSUMERS)
    assert isinstance(introspector.authenticate(bearer("alice-0")), Allow)
    assert len(endpoint.connections) == 1

    def child(index):
        for number in range(50):
            name = f"user{index}x{number}"
            assert introspector.authenticate(bearer(f"{name}-1")).claims["sub"] == f"subject of {name}"

    in_children(4, child)
    assert introspector.authenticate(bearer("alice-9")).claims["sub"] == "subject of alice"
    assert len(endpoint.connections) == 5


@pytest.mark.parametrize("transport", [None, tokenward.httpx.Transport])
def test_children_of_a_parent_with_an_event_loop_and_threads_begin_anew(endpoint, transport):
    introspector = Introspector(endpoint.config, CONSUMERS, transport=transport and transport())
    asyncio.run(introspector.authenticate_async(bearer("alice-0")))

    def child(index):
        async def main():
            names = [f"user{index}x{number}" for number in range(30)]
            tasks = [introspector.authenticate_async(bearer(f"{name}-1")) for name in names]
            for name, allow in zip(names, await asyncio.gather(*tasks)):
                assert allow.claims["sub"] == f"subject of {name}"

        asyncio.run(main())

    in_children(3, child)


def test_a_question_of_the_parent_keeps_no_child_waiting(endpoint):
    introspector = Introspector({**endpoint.config, "timeout": 20_000}, CONSUMERS)
    endpoint.hold()
    asking = threading.Thread(target=lambda: introspector.authenticate(bearer("alice-1")))
    asking.start()
    while not endpoint.calls:
        time.sleep(0.01)
    step = introspector.begin(bearer("bob-1"))

    def child(index):
        threading.Timer(0.2, endpoint.release).start()
        assert introspector.snapshot().in_flight == 0
        with pytest.raises(RuntimeError, match="fork"):
            step.send()
        for name in ("alice", "bob"):
            allow = introspector.begin(bearer(f"{name}-1")).reply(
                200, [("content-type", "application/json")], b'{"active":true}'
            )
            assert isinstance(allow, Allow)

    in_children(2, child, within=8)
    endpoint.release()
    asking.join()
    assert isinstance(step.send(), Allow)


def test_a_fork_while_threads_are_busy_leaves_no_lock_behind(endpoint):
    introspector = Introspector(endpoint.config, CONSUMERS)
    introspector.authenticate(bearer("alice-0"))
    over = False

    def busy():
        number = 0
        while not over:
            number += 1
            introspector.lookup(bearer("alice-0"))
            step = introspector.begin(bearer(f"junk-{threading.get_ident()}-{number}"))
            step.reply(200, [("content-type", "application/json")], b'{"active":false}')

    threads = [threading.Thread(target=busy) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            in_children(2, lambda index: introspector.lookup(bearer(f"other-{index}")))
    finally:
        over = True
        for thread in threads:
            thread.join()
