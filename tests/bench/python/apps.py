"""One trivial ASGI application, bare and behind each of the ways to authenticate it; APP=... uvicorn apps:app.

Each way remembers what the endpoint said, refuses a request without a token, and hands the application who calls.
"""

import asyncio
import json
import os
import time
import urllib.parse
import urllib.request

URL = os.environ["INTROSPECTION_URL"]
CLIENT = ("gateway", "s3cr3t")
BODY = b"Hello, world!\n"
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", str(len(BODY)).encode())]


async def hello(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("HTTP alone")
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


async def refuse(send):
    headers = [(b"content-length", b"0"), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def tokenward():
    from tokenward import Introspector
    from tokenward.asgi import TokenwardMiddleware

    client = {"method": "client_secret_basic", "client_id": CLIENT[0], "client_secret": CLIENT[1]}
    config = {"introspection_url": URL, "client_auth": client, "ttl": 600}
    return TokenwardMiddleware(hello, Introspector(config, [{"id": "7", "username": "alice"}]))


def authlib():
    from authlib.oauth2 import OAuth2Error
    from authlib.oauth2.rfc6749 import ResourceProtector
    from authlib.oauth2.rfc7662 import IntrospectTokenValidator
    from starlette.requests import Request

    remembered = {}

    class Validator(IntrospectTokenValidator):
        def introspect_token(self, token_string):
            known = remembered.get(token_string)
            if known is None or known[0] < time.monotonic():
                data = urllib.parse.urlencode({"token": token_string}).encode()
                with urllib.request.urlopen(URL, data) as answer:
                    known = remembered[token_string] = (time.monotonic() + 600, json.load(answer))
            return known[1]

    protector = ResourceProtector()
    protector.register_token_validator(Validator())

    async def app(scope, receive, send):
        try:
            token = protector.validate_request(None, Request(scope))
        except OAuth2Error:
            await refuse(send)
            return
        await hello({**scope, "user": token}, receive, send)

    return app


def fastmcp():
    from fastmcp.server.auth.providers.introspection import IntrospectionTokenVerifier
    from starlette.requests import Request

    verifier = IntrospectionTokenVerifier(
        introspection_url=URL, client_id=CLIENT[0], client_secret=CLIENT[1], cache_ttl_seconds=600
    )

    async def app(scope, receive, send):
        scheme, _, token = Request(scope).headers.get("authorization", "").partition(" ")
        found = await verifier.verify_token(token) if scheme.lower() == "bearer" else None
        if found is None:
            await refuse(send)
            return
        await hello({**scope, "user": found}, receive, send)

    return app


app = {"bare": lambda: hello, "tokenward": tokenward, "authlib": authlib, "fastmcp": fastmcp}[os.environ["APP"]]()
assert asyncio.iscoroutinefunction(app) or asyncio.iscoroutinefunction(app.__call__)
