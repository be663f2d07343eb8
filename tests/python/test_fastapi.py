"""The dependency of FastAPI and what Starlette's users expect, without a server in between."""

import asyncio
import json
import re
from typing import Annotated

import pytest
from conftest import CONSUMERS
from fastapi import Depends, FastAPI, Request, Security
from fastapi.security import SecurityScopes
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.datastructures import FormData
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from support.asgi import FORM, call, knowing, status

from tokenward import Allow, Introspector
from tokenward.asgi import TokenwardMiddleware
from tokenward.fastapi import install, require


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


def test_a_dependency_applies_what_it_decided_to_the_lines_it_decided_about(endpoint, monkeypatch):
    introspector = Introspector(endpoint.config, CONSUMERS)
    app = FastAPI()
    install(app, introspector)
    seen = []

    @app.get("/")
    async def root(request: Request, caller: Annotated[Allow, Depends(require())]):
        seen.extend(request.headers.raw)

    lines = []
    finish = introspector.finish_async

    async def finish_later(step):
        lines.append((b"x-consumer-username", b"root"))
        return await finish(step)

    monkeypatch.setattr(introspector, "finish_async", finish_later)

    async def keeps_the_list(scope, receive, send):
        lines.extend(scope["headers"])
        await app({**scope, "headers": lines}, receive, send)

    assert status(call(keeps_the_list)) == 200
    assert [value for name, value in seen if name == b"x-consumer-username"] == [b"alice"]
