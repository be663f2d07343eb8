"""The ASGI middleware, without a server in between."""

import asyncio
import copy
import gc
import inspect
import json
import logging
import pickle
import sys
import time
import weakref

import pytest
from conftest import CONSUMERS
from starlette.responses import PlainTextResponse
from support.asgi import CONFIG, FORM, App, call, knowing, status, tokenward_request

from tokenward import Allow, Introspector
from tokenward._tokenward import _asgi_again
from tokenward.asgi import TokenwardMiddleware


def test_an_application_gets_the_callers_headers_and_none_that_a_client_made_up(known):
    app = App()
    spoofed = [(b"x-consumer-id", b"root"), (b"x_consumer_username", b"root"), (b"x.credential.sub", b"root"), (b"accept", b"*/*")]
    assert status(call(TokenwardMiddleware(app, known), headers=spoofed)) == 200
    (scope,) = app.scopes
    assert scope["headers"] == [
        (b"accept", b"*/*"),
        (b"x-consumer-id", b"7"),
        (b"x-consumer-custom-id", b"customer-1"),
        (b"x-consumer-username", b"alice"),
        (b"x-credential-scope", b"api:read"),
        (b"x-credential-client-id", b"app"),
        (b"x-credential-sub", b"subject of alice"),
        (b"x-credential-identifier", b"alice"),
    ]
    assert scope["tokenward"].source == "cache"
    assert (scope["user"].is_authenticated, scope["user"].display_name, scope["user"].identity) == (True, "alice", "7")
    assert scope["auth"].scopes == ["api:read"]


@pytest.mark.parametrize("as_lists", [True, False])
def test_headers_may_be_any_iterable_of_pairs(known, as_lists):
    app = App()
    headers = [[b"authorization", b"Bearer alice"], [b"x-consumer-id", b"root"]]
    scope_headers = headers if as_lists else iter(headers)
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": scope_headers}

    async def run():
        async def send(_):
            pass

        async def receive():
            return {"type": "http.request"}

        await TokenwardMiddleware(app, known)(scope, receive, send)

    asyncio.run(run())
    names = [bytes(name) for name, _ in app.scopes[0]["headers"]]
    assert names.count(b"x-consumer-id") == 1 and b"authorization" not in names


def test_whatever_goes_wrong_the_request_does_not_pass(known, monkeypatch):
    app = App()
    middleware = TokenwardMiddleware(app, known)
    for broken in (
        {"headers": [(b"authorization",)]},
        {"headers": None},
        {"headers": [("authorization", "Bearer alice")]},
        {"query_string": "text"},
        {"method": 7},
        {"raw_path": None, "path": None},
    ):
        assert status(call_with(middleware, broken)) == 500

    async def finish(step):
        raise RuntimeError("it is broken")

    monkeypatch.setattr(known, "finish_async", finish)
    sent = call(middleware, token="never-seen")
    assert (status(sent), json.loads(sent[1]["body"])["error"]) == (500, "server_error")

    async def nonsense(step):
        return None

    monkeypatch.setattr(known, "finish_async", nonsense)
    with pytest.raises(AttributeError):
        call(middleware, token="never-seen-2")
    for kind in ("http2", "", None):
        with pytest.raises(RuntimeError):
            call(middleware, kind=kind)
    assert app.scopes == []


def call_with(middleware, changes):
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b""}
    scope = {**scope, "headers": [(b"authorization", b"Bearer alice")], **changes}
    asyncio.run(middleware(scope, receive, send))
    return sent


def test_lifespan_passes_untouched(known):
    app, scope = App(), {"type": "lifespan"}
    asyncio.run(TokenwardMiddleware(app, known)(scope, None, None))
    assert app.scopes[0] is scope


def test_a_websocket_is_decided_before_it_is_accepted(known):
    app = App()
    middleware = TokenwardMiddleware(app, known)
    assert call(middleware, kind="websocket") == [{"type": "websocket.accept"}]
    assert app.scopes[0]["user"].display_name == "alice"
    assert call(middleware, kind="websocket", token=None) == [
        {"type": "websocket.close", "code": 1008, "reason": "token_missing"}
    ]
    start, body = call(middleware, kind="websocket", token=None, extensions={"websocket.http.response": {}})
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
    assert body["type"] == "websocket.http.response.body"
    assert len(app.scopes) == 1


def test_excluded_paths_pass_without_a_token_and_without_what_a_client_made_up(known):
    app = App()
    middleware = TokenwardMiddleware(app, known, exclude=["/health", "/static/*"])
    for path in ("/health", "/static/a/b.css", "/static/"):
        assert status(call(middleware, token=None, path=path, headers=[(b"X_Consumer_ID", b"root"), (b"a", b"b")])) == 200
        assert app.scopes[-1]["headers"] == [(b"a", b"b")]
        assert "tokenward" not in app.scopes[-1]
    for path in (
        "/healthy",
        "/health/",
        "/static",
        "/static/../orders",
        "/static/./../orders",
        "/static//orders",
        "/static/a\\..\\..\\orders",
        "/static/%2e%2e/orders",
        "/static/..;/orders",
        "/Health",
        "//health",
    ):
        assert status(call(middleware, token=None, path=path)) == 401, path
    for wrong in ("health", "/a*b", "/a*"):
        with pytest.raises(ValueError):
            TokenwardMiddleware(app, known, exclude=[wrong])
    with pytest.raises(TypeError):
        TokenwardMiddleware(app, known, exclude="/health")


def test_a_hook_answers_in_place_of_the_standard_refusal(known):
    seen = []

    def on_deny(scope, deny):
        seen.append((scope["path"], str(deny.reason)))
        return PlainTextResponse("please log in", deny.status) if scope["path"] == "/page" else None

    async def on_deny_async(scope, deny):
        return on_deny(scope, deny)

    for hook in (on_deny, on_deny_async):
        middleware = TokenwardMiddleware(App(), known, on_deny=hook)
        assert call(middleware, token=None, path="/page")[1]["body"] == b"please log in"
        assert json.loads(call(middleware, token=None)[1]["body"])["error"] == "invalid_request"
    assert seen == [("/page", "token_missing"), ("/", "token_missing")] * 2

    def broken(scope, deny):
        raise RuntimeError

    app = App()
    with pytest.raises(RuntimeError):
        call(TokenwardMiddleware(app, known, on_deny=broken), token=None)
    assert app.scopes == []


def test_a_policy_of_its_own(known):
    settings = {"require": {"scopes": ["api:write"]}}
    for policy in (settings, known.policy(settings)):
        assert status(call(TokenwardMiddleware(App(), known, policy=policy))) == 403


def test_a_token_in_the_query_is_cut_out_and_the_answer_is_private():
    app = App([(b"Cache-Control", b"public, no-store, max-age=60"), (b"a", b"b")])
    middleware = TokenwardMiddleware(app, knowing({"token_from": ["query"]}))
    sent = call(middleware, token=None, query=b"a=%41&access_token=alice&b=+")
    assert app.scopes[0]["query_string"] == b"a=%41&b=+"
    assert sent[0]["headers"] == [(b"a", b"b"), (b"cache-control", b"private, no-store, max-age=60")]


def test_a_token_in_a_form_is_cut_out_with_the_right_length():
    app = App()
    middleware = TokenwardMiddleware(app, knowing({"token_from": ["header", "body"]}))
    headers = [FORM, (b"content-length", b"25")]
    assert status(call(middleware, token=None, method="POST", headers=headers, body=[b"a=1&access_", b"token=alice&", b"b=2"])) == 200
    assert app.bodies == [b"a=1&b=2"]
    assert [value for name, value in app.scopes[0]["headers"] if name == b"content-length"] == [b"7"]
    # With a token in the header nothing is read, and nothing changed.
    call(middleware, method="POST", headers=[FORM], body=[b"a=1", b"&b=2"])
    assert app.bodies[-1] == b"a=1&b=2"
    assert status(call(middleware, token=None, method="POST", headers=[FORM], body=[b"a=1"])) == 401
    assert len(app.bodies) == 2


def test_a_body_beyond_the_limit_is_not_searched_and_passes_whole():
    app = App()
    settings = {"token_from": ["header", "body"], "limits": {"body_bytes": 10}, "anonymous": "guest"}
    middleware = TokenwardMiddleware(app, knowing(settings))
    parts = [b"access_token", b"=alice&a=", b"x" * 100_000, b"end"]
    assert status(call(middleware, token=None, method="POST", headers=[FORM], body=parts)) == 200
    assert app.bodies == [b"".join(parts)]
    assert app.scopes[0]["tokenward"].identity.kind == "anonymous"


def test_a_client_that_goes_away_with_its_body_reaches_nobody():
    app = App()
    middleware = TokenwardMiddleware(app, knowing({"token_from": ["body"]}))
    assert call(middleware, token=None, method="POST", headers=[FORM], body=[]) == []
    assert app.scopes == []


def test_a_path_that_the_server_does_not_give_raw_is_encoded_again():
    introspector = Introspector({**CONFIG, "introspect_request": True})
    scope = {"type": "http", "method": "GET", "path": "/é a%2F?", "query_string": b"q", "headers": [(b"authorization", b"Bearer a")]}
    step = introspector._asgi(scope)
    assert dict(step.headers)["X-Request-Path"] == "/%C3%A9%20a%252F%3F"
    step.close()


def test_a_hit_adds_no_coroutine_of_its_own_and_servers_still_tell_it_is_asgi_3(known):
    async def app(scope, receive, send):
        pass

    middleware = TokenwardMiddleware(app, known)
    assert inspect.iscoroutinefunction(middleware.__call__)
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"authorization", b"Bearer alice")]}
    answer = middleware(scope, None, None)
    assert answer.cr_code is app.__code__
    asyncio.run(answer)
    asyncio.run(middleware.__call__(scope, None, None))


def test_a_hook_finds_nothing_that_a_client_made_up(known):
    app = App()
    middleware = TokenwardMiddleware(app, known, on_deny=lambda scope, deny: app)
    spoofed = [(b"X_Consumer_ID", b"root"), (b"accept", b"*/*")]
    assert status(call(middleware, token=None, headers=spoofed)) == 200
    assert app.scopes[0]["headers"] == [(b"accept", b"*/*")]
    # Where the headers cannot even be read, there are none.
    call_with(middleware, {"headers": [(b"x-consumer-id", b"root"), (b"authorization",)]})
    assert app.scopes[1]["headers"] == []


def test_a_token_is_cut_out_of_a_raw_path_that_holds_the_query_too():
    app = App()
    middleware = TokenwardMiddleware(app, knowing({"token_from": ["query"]}))
    query = b"a=%41&access_token=alice"
    assert status(call(middleware, token=None, query=query, raw_path=b"/%2F?" + query)) == 200
    assert (app.scopes[0]["raw_path"], app.scopes[0]["query_string"]) == (b"/%2F?a=%41", b"a=%41")


def test_a_body_that_was_cut_has_one_length_and_no_other_framing():
    app = App()
    middleware = TokenwardMiddleware(app, knowing({"token_from": ["body"]}))
    headers = [FORM, (b"Transfer-Encoding", b"chunked")]
    assert status(call(middleware, token=None, method="POST", headers=headers, body=[b"access_token=alice", b"&b=2"])) == 200
    assert [line for line in app.scopes[0]["headers"] if line[0].lower() in (b"content-length", b"transfer-encoding")] == [
        (b"content-length", b"3")
    ]


async def _nothing(scope, receive, send):
    pass


def hit_scope(token="alice", **changes):
    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b""}
    return {**scope, "headers": [(b"authorization", f"Bearer {token}".encode())], **changes}


def test_what_may_not_be_excluded_adds_no_coroutine_either(known):
    middleware = TokenwardMiddleware(_nothing, known, exclude=["/health", "/static/*"])
    for path, direct in (("/", True), ("/healthy", True), ("/health", False), ("/static/a", False), ("/static/../a", False)):
        answer = middleware(hit_scope(path=path), None, None)
        assert (answer.cr_code is _nothing.__code__) == direct, path
        asyncio.run(answer)


def test_a_middleware_that_was_not_set_up_lets_nothing_through(known):
    class Forgets(TokenwardMiddleware):
        def __init__(self, app):
            pass

    forgets = Forgets(_nothing)
    for use in (lambda: forgets(hit_scope(), None, None), lambda: forgets({"type": "lifespan"}, None, None), lambda: forgets.app):
        with pytest.raises(RuntimeError, match="not set up"):
            use()
    middleware = TokenwardMiddleware(_nothing, known)
    assert (middleware.app, middleware.introspector) == (_nothing, known)
    # What a hit goes to is not changed behind its back.
    with pytest.raises(AttributeError):
        middleware.app = None
    with pytest.raises(RuntimeError, match="before"):
        middleware.__init__(_nothing, known)


def test_a_subclass_may_stand_before_what_the_middleware_does(known):
    seen = []

    class Counting(TokenwardMiddleware):
        async def __call__(self, scope, receive, send):
            seen.append(scope["type"])
            await super().__call__(scope, receive, send)

    app = App()
    assert status(call(Counting(app, known))) == 200
    assert status(call(Counting(app, known), token=None)) == 401
    assert (seen, len(app.scopes)) == (["http", "http"], 1)


def test_nothing_that_one_request_does_to_its_scope_reaches_another(known):
    app = App()
    middleware = TokenwardMiddleware(app, known)
    call(middleware)
    first = app.scopes[0]
    expected = list(first["headers"])
    first["headers"][:] = [(b"x-consumer-id", b"root")]
    first["headers"].append((b"x-consumer-username", b"root"))
    for value in (first["user"], first["auth"], first["tokenward"]):
        for name in ("identity", "scopes", "display_name", "anything"):
            with pytest.raises(AttributeError):
                setattr(value, name, "root")
    first["user"].scopes.append("admin")
    first["tokenward"].set_headers.clear()
    call(middleware)
    second = app.scopes[1]
    assert second["headers"] == expected
    assert (second["user"].scopes, second["tokenward"].claims["scope"]) == (["api:read"], "api:read")
    assert second["tokenward"] is not first["tokenward"]


def test_callers_of_many_tokens_never_get_each_others_headers():
    # More of them than lines are kept for.
    introspector = Introspector({**CONFIG, "cache": {"capacity": 10_000}}, [])
    numbers = range(5_000)
    for number in numbers:
        answer = json.dumps({"active": True, "sub": f"s{number}", "client_id": f"c{number}", "exp": 4_102_444_800})
        introspector.begin(tokenward_request(f"t{number}")).reply(200, [("content-type", "application/json")], answer.encode())
    app = App()
    middleware = TokenwardMiddleware(app, introspector)
    for number in [*numbers, *numbers[::7], *reversed(numbers)]:
        middleware(hit_scope(f"t{number}"), None, None).close()
        scope = introspector._asgi(hit_scope(f"t{number}"))
        headers = dict(scope["headers"])
        assert (headers[b"x-credential-sub"], headers[b"x-credential-client-id"]) == (b"s%d" % number, b"c%d" % number)
        assert (scope["user"].identity, scope["tokenward"].claims["sub"]) == (f"s{number}", f"s{number}")


def test_hits_leave_nothing_behind(known):
    middleware = TokenwardMiddleware(_nothing, known)
    scope = hit_scope()

    def run(number):
        for _ in range(number):
            middleware(scope, None, None).close()

    run(1_000)
    known_ones = introspected_references(scope, known)
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        run(100_000)
        assert len(gc.get_objects()) - before < 50
    finally:
        gc.enable()
    assert introspected_references(scope, known) == known_ones


def introspected_references(scope, introspector):
    """References to what every hit has in common; each that was lost or kept too often would show."""
    passed = introspector._asgi(scope)
    lines = passed["headers"]
    return [sys.getrefcount(scope), sys.getrefcount(passed["user"]), *(sys.getrefcount(line) for line in lines)]


def test_a_middleware_is_released_with_its_application(known):
    class Application:
        async def __call__(self, scope, receive, send):
            pass

    app = Application()
    app.stack = TokenwardMiddleware(app, known)
    app.stack.__call__  # noqa: B018
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None


def test_an_exception_that_is_no_error_is_nobodys_to_answer(known, monkeypatch):
    app = App()

    class Stop(BaseException):
        pass

    def stopped():
        raise Stop
        yield

    with pytest.raises(Stop):
        TokenwardMiddleware(app, known)(hit_scope(headers=stopped()), None, None)
    assert app.scopes == []


def test_lines_that_change_while_the_endpoint_is_asked_reach_no_application(endpoint):
    introspector = Introspector(endpoint.config, CONSUMERS)
    app = App()
    lines = [[b"authorization", b"Bearer alice"], (b"x-kept", b"1")]
    scope = hit_scope(headers=lines)

    async def main():
        answer = TokenwardMiddleware(app, introspector)(scope, read_nothing, send_nothing)
        # Another task, or a middleware around this one that keeps its list.
        lines[0][:] = [b"x-consumer-id", b"root"]
        lines.append((b"x-consumer-username", b"root"))
        await answer

    asyncio.run(main())
    headers = app.scopes[0]["headers"]
    assert [value for name, value in headers if name == b"x-kept"] == [b"1"]
    assert [value for name, value in headers if name == b"x-consumer-username"] == [b"alice"]
    assert b"root" not in [value for _, value in headers]


async def read_nothing():
    return {"type": "http.request", "body": b"", "more_body": False}


async def send_nothing(message):
    pass


def test_lines_of_an_iterator_are_those_of_the_decision_to_its_end(endpoint):
    """It gives its lines once: to the decision, and to the application after a miss, a form, and a further policy."""
    introspector = Introspector({**endpoint.config, "token_from": ["header", "body"]}, CONSUMERS)
    app = App()
    form = (b"content-type", b"application/x-www-form-urlencoded")

    def lines(*names):
        yield from [(b"x-kept", b"1"), (b"authorization", b"Bearer alice"), *names]

    for scope in (hit_scope(headers=lines()), hit_scope(headers=lines(), path="/"), hit_scope(headers=lines(form), method="POST")):
        asyncio.run(TokenwardMiddleware(app, introspector)(scope, read_nothing, send_nothing))
        passed = app.scopes.pop()
        assert [name for name, _ in passed["headers"]][0] == b"x-kept"
        again = _asgi_again(introspector, passed["tokenward"], introspector.policy({"realm": "other"}))
        assert isinstance(again, Allow)
    refused = []

    async def answer(scope, receive, send):
        refused.extend(scope["headers"])

    hooked = TokenwardMiddleware(app, introspector, on_deny=lambda scope, deny: answer)
    asyncio.run(hooked(hit_scope(headers=iter([(b"x-kept", b"1")])), read_nothing, send_nothing))
    assert (refused, app.scopes) == ([(b"x-kept", b"1")], [])


def test_as_many_made_up_lines_as_a_server_takes_cost_little(known):
    """Of each the decision names one to remove: not each against each, which were a second for a request of a megabyte."""
    app = App()
    middleware = TokenwardMiddleware(app, known)

    def seconds(number):
        headers = [(b"x-consumer-%d" % one, b"root") for one in range(number)]
        scope = hit_scope(headers=[*headers, (b"authorization", b"Bearer alice")])
        best = 1e9
        for _ in range(3):
            start = time.process_time()
            middleware(scope, None, None).close()
            best = min(best, time.process_time() - start)
        return best

    # Twenty times as many; each against each would be four hundred times as much.
    assert seconds(20_000) < 100 * seconds(1_000)
    call(middleware, headers=[(b"x-consumer-%d" % one, b"root") for one in range(1_000)])
    assert b"root" not in [value for _, value in app.scopes[0]["headers"]]


def test_a_middleware_around_a_method_of_its_own_is_released(known):
    class Own(TokenwardMiddleware):
        def __init__(self, introspector):
            super().__init__(self.inside, introspector)

        async def inside(self, scope, receive, send):
            pass

    Own(known)
    gc.collect()
    before = sys.getrefcount(known)
    for _ in range(10):
        Own(known)
    gc.collect()
    # A weak reference would be gone even of what is never freed.
    assert sys.getrefcount(known) == before


@pytest.mark.parametrize("kind", ["deny", "exclusion", "exception", "bad lines"])
def test_what_is_no_hit_leaves_nothing_behind_either(known, kind, caplog):
    caplog.set_level(logging.CRITICAL, "tokenward")

    def raising(scope, receive, send):
        raise ZeroDivisionError

    middleware = TokenwardMiddleware(raising if kind == "exception" else _nothing, known, exclude=["/health"])
    headers = {"deny": [], "bad lines": [(b"authorization",)]}.get(kind, [(b"authorization", b"Bearer alice")])
    scope = hit_scope(headers=headers, path="/health" if kind == "exclusion" else "/")

    def run(number):
        for _ in range(number):
            try:
                middleware(scope, None, send_nothing).send(None)
            except (StopIteration, ZeroDivisionError):
                pass

    run(1_000)
    gc.collect()
    before = (sys.getrefcount(scope), sys.getrefcount(middleware), sys.getrefcount(known), len(gc.get_objects()))
    run(30_000)
    gc.collect()
    after = (sys.getrefcount(scope), sys.getrefcount(middleware), sys.getrefcount(known), len(gc.get_objects()))
    assert (after[:3], after[3] - before[3] < 50) == (before[:3], True)


@pytest.mark.parametrize("use", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_middleware_is_not_copied(known, use):
    with pytest.raises(TypeError, match="pickle"):
        use(TokenwardMiddleware(_nothing, known))

