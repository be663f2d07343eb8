"""`authenticate_async`: one call for many, no thread for those who wait, nobody harmed by who goes away."""

import asyncio
import gc
import socket
import threading
import time
from pathlib import Path

import pytest
from conftest import CONSUMERS

import tokenward.aiohttp
import tokenward.httpx
from tokenward import Allow, Answer, CallFailed, Deny, Introspector, Reason, Request

TRANSPORTS = {"threads": lambda: None, "httpx": tokenward.httpx.Transport, "aiohttp": tokenward.aiohttp.Transport}


@pytest.fixture(params=TRANSPORTS)
def make(request, endpoint):
    """Makes an introspector with each of the transports."""

    def make(**settings):
        options = {name: settings.pop(name) for name in ("threads", "queue") if name in settings}
        return Introspector({**endpoint.config, **settings}, CONSUMERS, transport=TRANSPORTS[request.param](), **options)

    return make


def bearer(token):
    return Request("GET", "/", [("Authorization", f"Bearer {token}")])


async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail("it did not happen within 10 s")


async def closed(introspector):
    if introspector._transport is not None:
        await introspector._transport.aclose()


def test_a_thousand_requests_with_one_new_token_make_one_call(make, endpoint, run):
    introspector = make()
    endpoint.hold()

    async def main():
        before = threading.active_count()
        tasks = [asyncio.create_task(introspector.authenticate_async(bearer("alice-1"))) for _ in range(1000)]
        await until(lambda: introspector.snapshot().waits == 999)
        assert threading.active_count() <= before + 2  # the endpoint's handler and the caller
        endpoint.release()
        decisions = await asyncio.gather(*tasks)
        await closed(introspector)
        return decisions

    decisions = run(main())
    assert sorted(allow.source for allow in decisions) == ["endpoint"] + ["waiting"] * 999
    assert {allow.identity.consumer.id for allow in decisions} == {"7"}
    assert endpoint.calls == ["alice-1"]


@pytest.mark.parametrize("which", [[0], [1, 500], list(range(0, 999)), list(range(1, 1000, 3)), [999, 0]])
def test_cancelling_any_of_a_thousand_harms_no_other(make, endpoint, run, which):
    introspector = make()
    endpoint.hold()

    async def main():
        tasks = [asyncio.create_task(introspector.authenticate_async(bearer("alice-1"))) for _ in range(1000)]
        await until(lambda: introspector.snapshot().waits == 999 and len(endpoint.calls) == 1)
        for index in which:
            tasks[index].cancel()
        await asyncio.sleep(0)
        endpoint.release()
        decisions = await asyncio.gather(*tasks, return_exceptions=True)
        await closed(introspector)
        return decisions

    began = time.monotonic()
    decisions = run(main())
    for index, decision in enumerate(decisions):
        assert isinstance(decision, asyncio.CancelledError if index in which else Allow)
    assert endpoint.calls == ["alice-1"]
    assert introspector.snapshot().in_flight == 0
    assert time.monotonic() - began < 10


def kept_waiting():
    """Seconds for which this thread could have run and the system ran something else, which is nobody's stall."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


class Heartbeat:
    """Beats every 5 ms in the running event loop, and keeps by how much each was late."""

    async def __aenter__(self):
        self.stalls, self._over = [], False
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_):
        self._over = True
        await self._task

    async def _beat(self):
        while not self._over:
            began, before = time.perf_counter(), kept_waiting()
            await asyncio.sleep(0.005)
            self.stalls.append(time.perf_counter() - began - 0.005 - (kept_waiting() - before))


def test_the_event_loop_goes_on_while_the_authorization_server_hangs(make, run):
    # Connections are accepted by the system, and nobody ever answers: no thread of the server's disturbs this process.
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}/"
        introspector = make(introspection_url=url, timeout=3000)

        async def main():
            gc.collect()  # of what other tests have left
            async with Heartbeat() as heartbeat:
                began = time.monotonic()
                decisions = await asyncio.gather(
                    *(introspector.authenticate_async(bearer(f"alice-{number % 40}")) for number in range(200))
                )
                took = time.monotonic() - began
            await closed(introspector)
            return heartbeat.stalls, decisions, took

        # What the package does itself, it does each time.
        worst = []
        while len(worst) < 3 and min(worst, default=1) >= 0.1:
            stalls, decisions, took = run(main())
            assert {decision.reason for decision in decisions} == {Reason.ENDPOINT_TIMED_OUT}
            assert 2.5 < took < 6 and len(stalls) > 100
            worst.append(max(stalls))
    assert min(worst) < 0.1, worst


@pytest.mark.parametrize("blocks", [lambda: time.sleep(0.15), lambda: sum(range(20_000_000))])
def test_the_heartbeat_notices_who_holds_the_event_loop_up(endpoint, run, blocks):
    async def transport(call):
        began = time.perf_counter()
        while time.perf_counter() - began < 0.15:
            blocks()
        raise CallFailed("closed")

    introspector = Introspector({**endpoint.config, "retry": {"attempts": 1}}, transport=transport)

    async def main():
        async with Heartbeat() as heartbeat:
            await introspector.authenticate_async(bearer("alice-1"))
        return max(heartbeat.stalls)

    assert run(main()) > 0.1


def test_a_hit_takes_no_turn_of_the_event_loop(make, run):
    introspector = make()

    async def main():
        await introspector.authenticate_async(bearer("alice-1"))
        waiting = introspector.authenticate_async(bearer("alice-1"))
        with pytest.raises(StopIteration) as stopped:
            waiting.send(None)
        await closed(introspector)
        return stopped.value.value

    assert run(main()).source == "cache"


def test_the_time_in_the_queue_counts(endpoint, run):
    introspector = Introspector({**endpoint.config, "timeout": 600}, threads=1)
    endpoint.hold()

    async def main():
        began = time.monotonic()
        tasks = [introspector.authenticate_async(bearer(f"alice-{number}")) for number in range(3)]
        decisions = await asyncio.gather(*tasks)
        return decisions, time.monotonic() - began

    decisions, took = run(main())
    assert {deny.reason for deny in decisions} == {Reason.ENDPOINT_TIMED_OUT}
    assert took < 1.2
    assert len(endpoint.calls) == 1


def test_a_full_queue_is_overloaded(endpoint, run):
    introspector = Introspector(endpoint.config, threads=1, queue=2)
    endpoint.hold()

    async def main():
        tasks = []
        for number in range(5):
            tasks.append(asyncio.create_task(introspector.authenticate_async(bearer(f"alice-{number}"))))
            await asyncio.sleep(0.05)
        done = [task.result() for task in tasks if task.done()]
        endpoint.release()
        return done, await asyncio.gather(*tasks)

    done, decisions = run(main())
    assert [deny.reason for deny in done] == [Reason.OVERLOADED] * 2
    assert dict(done[0].headers)["Retry-After"] == "1"
    assert sum(isinstance(decision, Allow) for decision in decisions) == 3
    assert introspector.snapshot().in_flight == 0


def test_each_way_that_a_call_fails_is_known(make, endpoint, run):
    introspector = make(retry={"attempts": 1}, timeout=800, limits={"reply_bytes": 5000}, cache={"enabled": False})
    scripts = {
        "endpoint_refused": lambda handler: handler.answer(403, "no"),
        "endpoint_unavailable": lambda handler: handler.answer(503, "later"),
        "reply_malformed": lambda handler: handler.answer(200, "<html>", "text/html"),
        "endpoint_unreachable": lambda handler: handler.connection.shutdown(2),
        "endpoint_timed_out": lambda handler: time.sleep(1.5),
    }

    def too_long(handler):
        handler.answer(200, '{"active":true,"x":"%s"}' % ("x" * 6000))

    def cut_off(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        handler.close_connection = True
        handler.connection.shutdown(2)

    def redirect(handler):
        handler.send_response(307)
        handler.send_header("Location", endpoint.url)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def coded(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n")
        handler.wfile.write(b"Content-Length: 15\r\n\r\n" + b'{"active":true}')

    async def main():
        found = {}
        for reason, script in scripts.items():
            endpoint.script.append(script)
            found[reason] = (await introspector.authenticate_async(bearer("alice-1"))).reason
        for name, script in (("too long", too_long), ("cut off", cut_off), ("coded", coded), ("redirect", redirect)):
            endpoint.script.append(script)
            found[name] = (await introspector.authenticate_async(bearer("alice-1"))).reason
        found["well"] = await introspector.authenticate_async(bearer("alice-1"))
        await closed(introspector)
        return found

    found = run(main())
    for reason in scripts:
        assert str(found[reason]) == reason
    assert {str(found[name]) for name in ("too long", "cut off", "coded")} == {"reply_malformed"}
    assert str(found["redirect"]) == "endpoint_refused"
    assert isinstance(found["well"], Allow)


def test_an_endpoint_that_is_not_there_is_unreachable(make, endpoint, run):
    introspector = make()
    endpoint.close()

    async def main():
        decision = await introspector.authenticate_async(bearer("alice-1"))
        await closed(introspector)
        return decision

    decision = run(main())
    assert (decision.reason, decision.status) == (Reason.ENDPOINT_UNREACHABLE, 503)


def test_a_name_that_does_not_resolve_is_unreachable(make, run):
    introspector = make(introspection_url="http://localhost.invalid/", allow_insecure_http=True)

    async def main():
        decision = await introspector.authenticate_async(bearer("alice-1"))
        await closed(introspector)
        return decision

    assert run(main()).reason is Reason.ENDPOINT_UNREACHABLE


def test_connections_are_kept_and_each_answer_is_its_own(make, endpoint, run):
    introspector = make()

    async def main():
        for number in range(20):
            decision = await introspector.authenticate_async(bearer(f"user{number}-1"))
            assert decision.claims["sub"] == f"subject of user{number}"
        await closed(introspector)

    run(main())
    assert len(endpoint.connections) == 1


def test_a_transport_of_ones_own_may_fail_in_any_way(endpoint, run, caplog):
    async def main():
        for error, reason in (
            (CallFailed("tls"), Reason.ENDPOINT_UNREACHABLE),
            (CallFailed("timed_out"), Reason.ENDPOINT_TIMED_OUT),
            (RuntimeError("Bearer alice-1 was here"), Reason.REPLY_MALFORMED),
            (asyncio.TimeoutError(), Reason.ENDPOINT_TIMED_OUT),
            (CallFailed("exploded"), None),
        ):

            async def transport(call, error=error):
                assert "alice" not in repr(call) and call.timeout > 9
                raise error

            introspector = Introspector(endpoint.config, transport=transport)
            if reason is None:
                with pytest.raises(ValueError):
                    await introspector.authenticate_async(bearer("alice-1"))
            else:
                assert (await introspector.authenticate_async(bearer("alice-1"))).reason is reason
            assert introspector.snapshot().in_flight == 0

        async def hangs(call):
            await asyncio.sleep(60)
            return Answer(200, [], b"")

        introspector = Introspector({**endpoint.config, "timeout": 100}, transport=hangs)
        assert (await introspector.authenticate_async(bearer("alice-1"))).reason is Reason.ENDPOINT_TIMED_OUT

    run(main())
    assert "was here" not in caplog.text


def test_two_event_loops_share_an_introspector(make, endpoint):
    introspector = make()
    endpoint.hold()
    decisions = []

    async def main():
        decisions.append(await introspector.authenticate_async(bearer("alice-1")))
        await closed(introspector)

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(4)]
    for thread in threads:
        thread.start()
    until_ = time.monotonic() + 10
    while introspector.snapshot().waits < 3 and time.monotonic() < until_:
        time.sleep(0.005)
    endpoint.release()
    for thread in threads:
        thread.join(10)
    assert len(decisions) == 4 and len(endpoint.calls) == 1


def test_a_loop_that_ends_leaves_nobody_waiting(make, endpoint):
    introspector = make()
    endpoint.hold()

    async def asks():
        asyncio.create_task(introspector.authenticate_async(bearer("alice-1")))
        await until(lambda: len(endpoint.calls) == 1)

    async def waits():
        decision = asyncio.create_task(introspector.authenticate_async(bearer("alice-1")))
        await asyncio.sleep(0.1)
        endpoint.release()
        return await asyncio.wait_for(decision, 5)

    asyncio.run(asks())
    assert isinstance(asyncio.run(waits()), Allow)


def test_a_refusal_is_given_at_once(make, run):
    assert isinstance(run(make().authenticate_async(Request("GET", "/"))), Deny)


@pytest.mark.parametrize("answer", [None, (200, [], None), (200, 7, b""), ("200", [], b""), (70_000, [], b""), (200, [("a",)], b"")])
def test_an_answer_of_a_transport_that_is_none_is_malformed(endpoint, run, answer):
    async def transport(call):
        return answer

    introspector = Introspector(endpoint.config, transport=transport)
    assert run(introspector.authenticate_async(bearer("alice-1"))).reason is Reason.REPLY_MALFORMED
    assert introspector.snapshot().in_flight == 0


def test_no_cookie_of_one_answer_goes_with_the_next_question(make, endpoint, run):
    introspector, seen = make(), []

    def answers(handler):
        seen.append(handler.headers["Cookie"])
        body = b'{"active":true,"username":"alice"}'
        handler.send_response(200)
        handler.send_header("Set-Cookie", "session=alice; Path=/")
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    async def main():
        for number in range(2):
            endpoint.script.append(answers)
            assert isinstance(await introspector.authenticate_async(bearer(f"alice-{number}")), Allow)
        await closed(introspector)

    run(main())
    assert seen == [None, None]


def test_a_thread_outlives_whatever_a_caller_does(endpoint):
    introspector = Introspector(endpoint.config, threads=1, queue=4)
    over = threading.Event()

    def raises(_):
        raise KeyError

    def ends(_):
        over.set()

    for number, done in enumerate((raises, raises, ends)):
        assert introspector._executor.submit(introspector.begin(bearer(f"alice-{number}")), done)
        time.sleep(0.1)
    assert over.wait(5)
    assert len(introspector._executor._running) == 1


def test_connections_that_are_all_dead_when_they_are_used_again_cost_no_request(make, run):
    body = b'{"active":true,"username":"alice"}'
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    dead = []

    async def serve(reader, writer):
        """Answers once; whoever comes back to the connection finds it closed."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            await asyncio.sleep(0.3 if len(dead) == 0 else 0)
            writer.write(answer)
            if await reader.read(1):
                dead.append(writer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.transport.abort()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        introspector = make(introspection_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", timeout=5000)
        kept = await asyncio.gather(*(introspector.authenticate_async(bearer(f"kept-{number}")) for number in range(4)))
        later = [await introspector.authenticate_async(bearer(f"later-{number}")) for number in range(8)]
        await closed(introspector)
        server.close()
        return kept + later

    assert [type(decision) for decision in run(main())] == [Allow] * 12
    assert dead
