"""The ASGI middleware, and FastAPI's dependency over it, without a server in between."""

import asyncio
import gc
import inspect
import json
import re
import sys
import weakref
from typing import Annotated

import pytest
from conftest import CONSUMERS
from fastapi import Depends, FastAPI, Request, Security
from fastapi.security import SecurityScopes
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.datastructures import FormData
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from support.servers import claims_of

from tokenward import Allow, Introspector
from tokenward.asgi import TokenwardMiddleware
from tokenward.fastapi import install, require

CONFIG = {"introspection_url": "https://as.example/introspect", "authorization_value": "Basic czNjcjN0"}


@pytest.fixture
def known():
    """An introspector that knows `alice` already."""
    return knowing({})


def knowing(settings):
    introspector = Introspector({**CONFIG, **settings}, CONSUMERS)
    header = introspector.policy({"token_from": ["header"]})
    with introspector.begin(tokenward_request("alice"), header) as step:
        step.reply(200, [("content-type", "application/json")], json.dumps(claims_of("alice")).encode())
    return introspector


def tokenward_request(token):
    from tokenward import Request

    return Request("GET", "/", [("authorization", f"Bearer {token}")])


class App:
    """Remembers what reaches it, and reads the whole body."""

    def __init__(self, headers=()):
        self.scopes, self.bodies, self.headers = [], [], list(headers)

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        if scope["type"] == "lifespan":
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"reached"})


def call(app, token="alice", method="GET", path="/", query=b"", headers=(), body=(b"",), kind="http", **more):
    headers = list(headers) + ([(b"authorization", f"Bearer {token}".encode())] if token else [])
    scope = {"type": kind, "method": method, "path": path, "raw_path": path.encode(), "query_string": query, "headers": headers}
    scope = {**scope, "http_version": "1.1", "scheme": "http", "root_path": "", **more}
    if kind == "websocket":
        del scope["method"]
    before = {**scope, "headers": list(headers)}
    parts, sent = list(body), []

    async def receive():
        if kind == "websocket":
            return {"type": "websocket.connect"}
        if not parts:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    asyncio.run(asyncio.wait_for(app(scope, receive, send), 20))
    if not isinstance(app, FastAPI):  # whose dependencies edit what the route sees
        assert {name: scope[name] for name in before} == before, "the server's own scope is left as it is"
    return sent


def status(sent):
    return sent[0]["status"]


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


FORM = (b"content-type", b"application/x-www-form-urlencoded")


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


def test_starlettes_users_find_the_caller_where_they_expect_it(known):
    @requires("api:read")
    async def read(request):
        return JSONResponse([request.user.display_name, request.user.is_authenticated, request.auth.scopes])

    @requires("api:write")
    async def write(request):
        return JSONResponse(None)

    app = Starlette(routes=[Route("/read", read), Route("/write", write)])
    app.add_middleware(TokenwardMiddleware, introspector=known)
    assert json.loads(call(app, path="/read")[1]["body"]) == ["alice", True, ["api:read"]]
    assert status(call(app, path="/write")) == 403
    assert status(call(app, path="/read", token=None)) == 401


@pytest.mark.parametrize("middleware", [False, True])
def test_a_fastapi_route_wants_scopes(middleware):
    introspector = knowing({"array_format": "repeat"})
    app = FastAPI()
    install(app, introspector, middleware=middleware)

    @app.get("/read")
    async def read(request: Request, caller: Annotated[Allow, Depends(require("admin", "api:read"))]):
        return [caller.identity.consumer.username, dict(request.headers)]

    @app.get("/write")
    async def write(caller: Annotated[Allow, Depends(require("api:read api:write"))]):
        return None

    @app.get("/both", dependencies=[Depends(require("api:read"))])
    async def both(caller: Annotated[Allow, Depends(require("api:read other", "api:read"))]):
        return caller.source

    @app.get("/secured")
    async def secured(caller: Annotated[Allow, Security(require(), scopes=["api:write"])]):
        return None

    name, headers = json.loads(call(app, path="/read", headers=[(b"x-consumer-id", b"root")])[1]["body"])
    assert (name, headers["x-consumer-id"], "authorization" in headers) == ("alice", "7", False)
    for path in ("/write", "/secured"):
        sent = call(app, path=path)
        challenge = dict(sent[0]["headers"])[b"www-authenticate"].decode()
        assert (status(sent), 'scope="' in challenge) == (403, True), challenge
        assert json.loads(sent[1]["body"])["error"] == "insufficient_scope"
    assert "api:write" in challenge
    assert json.loads(call(app, path="/both")[1]["body"]) == "cache"
    sent = call(app, path="/read", token=None)
    assert (status(sent), json.loads(sent[1]["body"])["error_description"]) == (401, "The access token is missing")
    document = app.openapi()
    scheme = document["components"]["securitySchemes"]["Tokenward"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert re.search("Tokenward", json.dumps(document["paths"]["/write"]["get"]["security"]))


def test_a_fastapi_application_without_an_introspector_lets_nobody_in():
    app = FastAPI()

    @app.get("/")
    async def read(caller: Annotated[Allow, Depends(require())]):
        return None

    with pytest.raises(RuntimeError, match="install"):
        call(app)


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


def test_what_a_route_wants_comes_on_top_of_what_the_document_requires():
    introspector = knowing({"require": {"audience": ["https://api.example"], "scopes": ["api:read", "other"]}})
    app = FastAPI()
    install(app, introspector)

    @app.get("/plain", dependencies=[Depends(require())])
    async def plain():
        return None

    @app.get("/read", dependencies=[Depends(require("api:read"))])
    async def read():
        return None

    @app.get("/own", dependencies=[Depends(require("api:read", require={"audience": ["app"]}))])
    async def own():
        return None

    # The token has no audience at all.
    assert [status(call(app, path=path)) for path in ("/plain", "/read", "/own")] == [401, 401, 401]

    introspector = knowing({"require": {"scopes": ["api:write"]}})
    app.state.tokenward = introspector
    assert [status(call(app, path=path)) for path in ("/plain", "/read", "/own")] == [403, 403, 401]


def test_a_route_that_wants_scopes_lets_no_anonymous_caller_in():
    for middleware in (False, True):
        app = FastAPI()
        install(app, knowing({"anonymous": "guest"}), middleware=middleware)

        @app.get("/any")
        async def anybody(caller: Annotated[Allow, Depends(require())]):
            return caller.identity.kind

        @app.get("/read", dependencies=[Depends(require("api:read"))])
        async def read():
            return None

        @app.get("/guests", dependencies=[Depends(require("api:read", anonymous="guest"))])
        async def guests():
            return None

        assert json.loads(call(app, path="/any", token=None)[1]["body"]) == "anonymous"
        assert status(call(app, path="/read", token=None)) == 401
        assert status(call(app, path="/read")) == 200
        assert status(call(app, path="/guests", token=None)) == 200


def test_a_dependency_reads_no_more_of_a_body_than_the_limit():
    introspector = knowing({"token_from": ["header", "body"], "limits": {"body_bytes": 100}, "anonymous": "guest"})
    app, taken = FastAPI(), []
    install(app, introspector)

    def left():
        for _ in range(50):
            taken.append(1)
            yield b"x" * 100

    @app.post("/")
    async def route(request: Request, caller: Annotated[Allow, Depends(require())]):
        before = len(taken)
        return [caller.identity.kind, before, len(await request.body())]

    parts = left()
    scope = {"type": "http", "method": "POST", "path": "/", "raw_path": b"/", "query_string": b"", "headers": [FORM]}
    scope = {**scope, "http_version": "1.1", "scheme": "http", "root_path": ""}
    sent = []

    async def receive():
        part = next(parts, b"")
        return {"type": "http.request", "body": part, "more_body": bool(part)}

    async def send(message):
        sent.append(message)

    asyncio.run(asyncio.wait_for(app(scope, receive, send), 20))
    assert json.loads(sent[1]["body"]) == ["anonymous", 2, 5000]


def test_a_dependency_finds_the_token_in_a_form_that_was_parsed_already():
    introspector = knowing({"token_from": ["body"]})
    scope = {"type": "http", "method": "POST", "path": "/", "raw_path": b"/", "query_string": b"", "headers": [FORM]}
    request = Request({**scope, "app": FastAPI()}, None)
    request._form = FormData([("a", "&access_token=x"), ("access_token", "alice")])
    allow = asyncio.run(require(introspector=introspector)(request, SecurityScopes(), Response()))
    assert allow.identity.consumer.username == "alice"


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
