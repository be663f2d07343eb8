"""The WSGI middleware and Django's, without a server in between."""

import io
import json

import pytest
from test_asgi import knowing

from tokenward.wsgi import TokenwardMiddleware

FORM = "application/x-www-form-urlencoded"


class App:
    def __init__(self, headers=()):
        self.environs, self.bodies, self.headers = [], [], list(headers)

    def __call__(self, environ, start_response):
        self.environs.append(dict(environ))
        self.bodies.append(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        start_response("200 OK", self.headers)
        return [b"reached"]


def call(app, token="alice", body=b"", **environ):
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "wsgi.input": io.BytesIO(body),
        **({"HTTP_AUTHORIZATION": f"Bearer {token}"} if token else {}),
        **environ,
    }
    answer = {}

    def start_response(status, headers, *_):
        answer.update(status=int(status.split()[0]), headers=headers)

    answer["body"] = b"".join(app(environ, start_response))
    return answer


def managed(environ):
    return {key: value for key, value in environ.items() if key.startswith(("HTTP_X", "REMOTE", "AUTH_TYPE", "HTTP_AUTH"))}


def test_an_application_gets_the_callers_headers_and_none_that_a_client_made_up():
    app = App()
    spoofed = {
        "HTTP_X_CONSUMER_ID": "root",
        "HTTP_X_CONSUMER_GROUPS": "root",
        "HTTP_X_ANONYMOUS_CONSUMER": "true",
        "HTTP_X_CREDENTIAL.SUB": "root",
        "HTTP_X.CONSUMER.ID": "root",
        "HTTP_X-CONSUMER-ID": "root",
        "HTTP_x_consumer_id": "root",
        "REMOTE_USER": "root",
        "AUTH_TYPE": "Basic",
        "HTTP_X_CONSUMERS": "not ours",
    }
    assert call(TokenwardMiddleware(app, knowing({})), **spoofed)["status"] == 200
    (environ,) = app.environs
    assert managed(environ) == {
        "HTTP_X_CONSUMER_ID": "7",
        "HTTP_X_CONSUMER_CUSTOM_ID": "customer-1",
        "HTTP_X_CONSUMER_USERNAME": "alice",
        "HTTP_X_CREDENTIAL_SCOPE": "api:read",
        "HTTP_X_CREDENTIAL_CLIENT_ID": "app",
        "HTTP_X_CREDENTIAL_SUB": "subject of alice",
        "HTTP_X_CREDENTIAL_IDENTIFIER": "alice",
        "REMOTE_USER": "alice",
        "AUTH_TYPE": "Bearer",
        "HTTP_X_CONSUMERS": "not ours",
    }
    assert environ["tokenward"].source == "cache"


def test_nobody_is_the_remote_user_but_a_known_consumer():
    app = App()
    assert call(TokenwardMiddleware(app, knowing({"anonymous": "guest"})), token=None, REMOTE_USER="root")["status"] == 200
    assert managed(app.environs[0]) == {
        "HTTP_X_CONSUMER_ID": "3",
        "HTTP_X_CONSUMER_USERNAME": "guest",
        "HTTP_X_ANONYMOUS_CONSUMER": "true",
    }


def test_whatever_goes_wrong_the_request_does_not_pass(monkeypatch):
    app, introspector = App(), knowing({"token_from": ["header", "body"]})
    middleware = TokenwardMiddleware(app, introspector)
    for broken in ({"REQUEST_METHOD": None}, {"HTTP_ACCEPT": 7}, {"QUERY_STRING": "\u20ac"}, {"HTTP_ACCEPT": "\ud800"}):
        assert call(middleware, **broken)["status"] == 500, broken

    class Broken:
        def read(self, size):
            raise OSError("the client went away")

    post = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": FORM, "CONTENT_LENGTH": "5", "wsgi.input": Broken()}
    assert call(middleware, token=None, **post)["status"] == 500
    monkeypatch.setattr(introspector, "finish", lambda step: 1 / 0)
    assert call(middleware, token="never-seen")["status"] == 500
    assert app.environs == []


def test_excluded_paths_pass_without_a_token_and_without_what_a_client_made_up():
    app = App()
    middleware = TokenwardMiddleware(app, knowing({}), exclude=["/health", "/é/*"])
    assert call(middleware, token=None, PATH_INFO="/health", HTTP_X_CONSUMER_ID="root")["status"] == 200
    assert call(middleware, token=None, SCRIPT_NAME="/é".encode().decode("latin-1"), PATH_INFO="/a")["status"] == 200
    assert [managed(environ) for environ in app.environs] == [{}, {}]
    # A SCRIPT_NAME of the client's own leaves the application with another path.
    mounted = {"SCRIPT_NAME": "/é".encode().decode("latin-1"), "HTTP_SCRIPT_NAME": "/é"}
    assert call(middleware, token=None, PATH_INFO="/orders", **mounted)["status"] == 401
    assert call(middleware, token=None, PATH_INFO="/health", **mounted)["status"] == 200
    for path in ("/healthy", "/health/../a", "/orders"):
        assert call(middleware, token=None, PATH_INFO=path)["status"] == 401


@pytest.mark.parametrize("raw", ["RAW_URI", "REQUEST_URI", None])
def test_a_token_in_the_query_is_cut_out_everywhere_and_the_answer_is_private(raw):
    app = App([("Cache-Control", "no-store"), ("A", "b")])
    middleware = TokenwardMiddleware(app, knowing({"token_from": ["query"]}))
    query = "a=%41&access_token=alice"
    more = {} if raw is None else {raw: f"/p%2Fq?{query}"}
    answer = call(middleware, token=None, PATH_INFO="/p/q", QUERY_STRING=query, **more)
    assert answer["headers"] == [("A", "b"), ("Cache-Control", "private, no-store")]
    environ = app.environs[0]
    assert environ["QUERY_STRING"] == "a=%41"
    if raw:
        assert environ[raw] == "/p%2Fq?a=%41"


def test_the_raw_target_is_what_the_server_gives_and_else_encoded_again():
    introspector = knowing({"introspect_request": True})
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/\xc3\xa9 %", "HTTP_AUTHORIZATION": "Bearer abc"}
    for more, path in (({}, "/%C3%A9%20%25"), ({"REQUEST_URI": "/%c3%A9%20%25?q"}, "/%c3%A9%20%25"), ({"PATH_INFO": ""}, "/")):
        with introspector._wsgi({**environ, **more}) as step:
            assert dict(step.headers)["X-Request-Path"] == path


def test_a_token_in_a_form_is_cut_out_with_the_right_length():
    app = App()
    middleware = TokenwardMiddleware(app, knowing({"token_from": ["header", "body"]}))
    body = b"a=1&access_token=alice&b=2"
    post = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": FORM}
    assert call(middleware, token=None, body=body, CONTENT_LENGTH=str(len(body)), **post)["status"] == 200
    assert (app.bodies, app.environs[0]["CONTENT_LENGTH"]) == ([b"a=1&b=2"], "7")
    # Nothing behind the body is read, and nothing where its end cannot be known.
    assert call(middleware, token=None, body=b"a=1access_token=alice", CONTENT_LENGTH="3", **post)["status"] == 401
    assert call(middleware, token=None, body=body, **post)["status"] == 401
    app.bodies.clear()
    call(middleware, token=None, body=body, **{**post, "wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"})
    assert app.environs[-1]["CONTENT_LENGTH"] == "7" and "HTTP_TRANSFER_ENCODING" not in app.environs[-1]


def test_a_body_beyond_the_limit_is_not_searched_and_passes_whole():
    app = App()
    settings = {"token_from": ["header", "body"], "limits": {"body_bytes": 10}, "anonymous": "guest"}
    middleware = TokenwardMiddleware(app, knowing(settings))
    body = b"access_token=alice&a=" + b"x" * 100_000
    post = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": FORM, "CONTENT_LENGTH": str(len(body))}
    assert call(middleware, token=None, body=body, **post)["status"] == 200
    first = app.bodies[0]
    assert body.startswith(first) and len(first) >= 11


def test_a_hook_answers_in_place_of_the_standard_refusal():
    def login(environ, start_response):
        start_response("302 Found", [("Location", "/login")])
        return []

    middleware = TokenwardMiddleware(App(), knowing({}), on_deny=lambda environ, deny: login if deny.status == 401 else None)
    assert call(middleware, token=None)["status"] == 302
    answer = call(middleware, token="not a token")
    assert (answer["status"], json.loads(answer["body"])["error"]) == (400, "invalid_request")
    head = call(TokenwardMiddleware(App(), knowing({})), token=None, REQUEST_METHOD="HEAD")
    assert (head["status"], head["body"]) == (401, b"")


def test_a_body_that_was_cut_off_is_not_passed_for_a_whole_one():
    app = App()
    middleware = TokenwardMiddleware(app, knowing({"token_from": ["header", "body"], "anonymous": "guest"}))
    post = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": FORM, "CONTENT_LENGTH": "40"}
    for body in (b"access_token=alice&amount=1", b"amount=1", b""):
        assert call(middleware, token=None, body=body, **post)["status"] == 500
    assert app.environs == []


def test_a_hook_finds_nothing_that_a_client_made_up():
    app = App()
    middleware = TokenwardMiddleware(app, knowing({}), on_deny=lambda environ, deny: app)
    assert call(middleware, token=None, HTTP_X_CONSUMER_ID="root", **{"HTTP_X.CONSUMER.ID": "root"})["status"] == 200
    assert managed(app.environs[0]) == {}
