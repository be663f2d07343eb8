"""An introspector that knows a caller, and an application to call without a server in between."""

import asyncio
import json

from fastapi import FastAPI

from conftest import CONSUMERS
from support.servers import claims_of

from tokenward import Introspector, Request

CONFIG = {"introspection_url": "https://as.example/introspect", "authorization_value": "Basic czNjcjN0"}
FORM = (b"content-type", b"application/x-www-form-urlencoded")


def knowing(settings):
    introspector = Introspector({**CONFIG, **settings}, CONSUMERS)
    header = introspector.policy({"token_from": ["header"]})
    with introspector.begin(tokenward_request("alice"), header) as step:
        step.reply(200, [("content-type", "application/json")], json.dumps(claims_of("alice")).encode())
    return introspector


def tokenward_request(token):
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
