"""Django's middleware, without a server in between."""

import json

import django
import pytest
from conftest import CONSUMERS
from django.conf import settings
from django.http import HttpResponse
from django.test import RequestFactory
from support.servers import claims_of

import tokenward.django
from tokenward import Introspector, Request

CONFIG = {"introspection_url": "https://as.example/introspect", "authorization_value": "Basic czNjcjN0"}


@pytest.fixture
def middleware(monkeypatch):
    """Makes the middleware around a view that remembers its requests."""
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], TOKENWARD={})
        django.setup()

    def make(config, **options):
        introspector = Introspector({**CONFIG, **config}, CONSUMERS)
        header = introspector.policy({"token_from": ["header"]})
        with introspector.begin(Request("GET", "/", [("authorization", "Bearer alice")]), header) as step:
            step.reply(200, [("content-type", "application/json")], json.dumps(claims_of("alice")).encode())
        monkeypatch.setattr(settings, "TOKENWARD", {"INTROSPECTOR": introspector, **options})
        monkeypatch.setattr(tokenward.django, "_introspector", None)
        seen = []

        def view(request):
            seen.append(request)
            return HttpResponse("reached")

        return tokenward.django.TokenwardMiddleware(view), seen

    return make


def test_a_token_is_nowhere_left_of_a_form_that_was_parsed_before(middleware):
    respond, seen = middleware({"token_from": ["header", "body"]})
    request = RequestFactory().post("/", "a=1&access_token=alice&b=2", content_type="application/x-www-form-urlencoded")
    assert request.POST["access_token"] == "alice"
    assert respond(request).status_code == 200
    (request,) = seen
    assert (request.body, request.read()) == (b"a=1&b=2", b"a=1&b=2")
    assert request.POST.dict() == {"a": "1", "b": "2"}
    assert request.META["CONTENT_LENGTH"] == "7"


def test_what_was_computed_from_the_clients_headers_is_forgotten(middleware):
    respond, seen = middleware({})
    request = RequestFactory().get("/", headers={"Authorization": "Bearer alice", "X-Consumer-Id": "root"}, REMOTE_USER="root")
    assert request.headers["X-Consumer-Id"] == "root"
    assert respond(request).status_code == 200
    assert (seen[0].headers["X-Consumer-Id"], seen[0].META["REMOTE_USER"]) == ("7", "alice")
    assert "Authorization" not in seen[0].headers


def test_a_hook_finds_nothing_that_a_client_made_up(middleware):
    found = []

    def on_deny(request, deny):
        found.append((request.headers.get("X-Consumer-Id"), str(deny.reason)))

    respond, seen = middleware({}, ON_DENY=on_deny)
    request = RequestFactory().get("/", headers={"X-Consumer-Id": "root"})
    assert request.headers["X-Consumer-Id"] == "root"
    assert respond(request).status_code == 401
    assert (found, seen) == ([(None, "token_missing")], [])


def test_whatever_goes_wrong_the_request_does_not_pass(middleware, monkeypatch):
    respond, seen = middleware({"token_from": ["header", "body"]})
    monkeypatch.setattr(respond._introspector, "finish", lambda step: 1 / 0)
    assert respond(RequestFactory().get("/", headers={"Authorization": "Bearer unknown"})).status_code == 500
    monkeypatch.setattr(settings, "DATA_UPLOAD_MAX_MEMORY_SIZE", 10)
    form = RequestFactory().post("/", "a=1&access_token=alice", content_type="application/x-www-form-urlencoded")
    assert respond(form).status_code == 500
    monkeypatch.setattr(respond._introspector, "finish", lambda step: None)
    assert respond(RequestFactory().get("/", headers={"Authorization": "Bearer unknown"})).status_code == 500
    assert seen == []
