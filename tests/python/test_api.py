"""The Python API: what a host writes, and what it never sees."""

import copy
import gc
import json
import logging
import pickle
import threading
import traceback
import warnings
import weakref

import pytest
from conftest import CONSUMERS
from support.servers import claims_of

import tokenward
from tokenward import (
    Allow,
    ConfigError,
    ConfigWarning,
    Consumer,
    Deny,
    Identity,
    Introspect,
    Introspector,
    Reason,
    Request,
    Wait,
    _tokenward,
)

CONFIG = {"introspection_url": "https://as.example/introspect", "authorization_value": "Basic czNjcjN0LW9mLW91cnM="}
JSON = [("content-type", "application/json")]


def bearer(token, method="GET", target="/"):
    return Request(method, target, [("Authorization", f"Bearer {token}")])


def answer(step, name="alice"):
    return step.reply(200, JSON, json.dumps(claims_of(name)).encode())


def test_reasons_have_the_names_and_numbers_of_the_core():
    assert [(str(reason), reason.value) for reason in Reason] == _tokenward._reasons()


def test_match_statements_work_on_decisions():
    introspector = Introspector(CONFIG, CONSUMERS)
    match answer(introspector.begin(bearer("abc"))):
        case Allow(Identity("consumer", Consumer(id, username))):
            assert (id, username) == ("7", "alice")
        case other:
            pytest.fail(repr(other))
    match introspector.lookup(Request("GET", "/")):
        case Deny(Reason.TOKEN_MISSING, 401):
            pass
        case other:
            pytest.fail(repr(other))


def test_an_allow_says_who_calls_and_what_the_upstream_may_be_told():
    introspector = Introspector(CONFIG, CONSUMERS)
    request = Request("GET", "/", {"authorization": "Bearer abc", "x-consumer-id": "root"})
    allow = answer(introspector.begin(request))
    assert allow.set_headers[:3] == [
        ("X-Consumer-ID", "7"),
        ("X-Consumer-Custom-ID", "customer-1"),
        ("X-Consumer-Username", "alice"),
    ]
    assert allow.remove_headers == ["Authorization", "x-consumer-id"]
    assert allow.identity.consumer.tags == ("gold",)
    assert (allow.target, allow.body, allow.expires, allow.source) == (None, None, None, "endpoint")
    assert allow.claims == claims_of("alice")
    with pytest.raises(TypeError):
        allow.claims["scope"] = "admin"
    with pytest.raises(AttributeError):
        allow.source = "cache"


def test_a_refusal_is_a_whole_answer():
    deny = Introspector(CONFIG).lookup(Request("GET", "/"))
    assert deny.headers == [
        ("Content-Type", "application/json; charset=utf-8"),
        ("Cache-Control", "no-store"),
        ("WWW-Authenticate", 'Bearer realm="service"'),
    ]
    assert deny.body == b'{"error":"invalid_request","error_description":"The access token is missing"}'
    assert Introspector(CONFIG).lookup(Request("HEAD", "/")).body is None


def test_a_lookup_begins_nothing():
    introspector = Introspector(CONFIG)
    assert introspector.lookup(bearer("abc")) is None
    assert introspector.snapshot().misses == 0
    answer(introspector.begin(bearer("abc")))
    assert introspector.lookup(bearer("abc")).source == "cache"
    assert introspector.lookup(bearer("abc"), introspector.policy({"require": {"scopes": ["x"]}})).status == 403


def test_all_errors_of_a_configuration_come_at_once():
    with pytest.raises(ConfigError) as raised:
        Introspector({"tll": 5, "timeout": 0, "authorization_value": "Basic czNjcjN0LW9mLW91cnM=\n"})
    problems = raised.value.problems
    assert [problem.path for problem in problems] == ["tll", "timeout", "authorization_value", "introspection_url"]
    assert "the nearest known one is `ttl`" in problems[0].message
    assert str(problems[0]) in str(raised.value)
    assert isinstance(raised.value, ValueError)
    assert pickle.loads(pickle.dumps(raised.value)).problems == problems
    for bad in (42, None, ["a"]):
        with pytest.raises(TypeError):
            Introspector(bad)
    with pytest.raises(ConfigError) as raised:
        Introspector(CONFIG, [{"id": "1", "username": "a"}, {"id": "1", "username": "b"}])
    assert raised.value.problems[0].path.startswith("consumers[1]")
    with pytest.raises(ConfigError):
        Introspector("/no/such/file.json")


def test_a_configuration_is_a_mapping_a_text_or_a_path(tmp_path):
    document = {**CONFIG, "consumers": CONSUMERS}
    file = tmp_path / "tokenward.json"
    file.write_text(json.dumps(document))
    for config in (document, json.dumps(document), file, str(file)):
        assert [consumer.id for consumer in Introspector(config).consumers] == ["7", "3"]
    assert [consumer.username for consumer in Introspector(file, [{"username": "bob"}]).consumers] == ["bob"]
    assert Introspector(CONFIG, json.dumps(CONSUMERS)).consumers[0] == Introspector(file).consumers[0]


def test_what_is_probably_not_meant_is_warned_of_where_it_is_written():
    with pytest.warns(ConfigWarning, match="ttl") as caught:
        Introspector({**CONFIG, "profile": "kong", "ttl": 0})
    assert any(warning.filename == __file__ for warning in caught)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConfigWarning):
            Introspector({**CONFIG, "profile": "kong", "ttl": 0})


def test_consumers_and_configuration_are_replaced():
    introspector = Introspector(CONFIG)
    assert answer(introspector.begin(bearer("abc"))).identity.kind == "unmatched"
    introspector.replace_consumers(CONSUMERS)
    assert introspector.lookup(bearer("abc")).identity.consumer.id == "7"
    introspector.replace_config({**CONFIG, "require": {"scopes": ["admin"]}})
    assert introspector.lookup(bearer("abc")).reason is Reason.INSUFFICIENT_SCOPE
    with pytest.raises(ConfigError):
        introspector.replace_config({})
    assert introspector.lookup(bearer("abc")).reason is Reason.INSUFFICIENT_SCOPE
    introspector.replace_config({**CONFIG, "consumers": [{"id": "8", "username": "alice"}]})
    assert introspector.lookup(bearer("abc")).identity.consumer.id == "8"
    assert introspector.forget("abc") and not introspector.forget(b"abc")
    assert introspector.lookup(bearer("abc")) is None


def test_a_step_is_used_once():
    introspector = Introspector(CONFIG)
    step = introspector.begin(bearer("abc"))
    answer(step)
    for use in (lambda: answer(step), lambda: step.fail("connect"), step.send, lambda: step.url):
        with pytest.raises(RuntimeError, match="used"):
            use()
    with pytest.raises(ValueError, match="timed_out"):
        introspector.begin(bearer("def")).fail("exploded")


def test_a_step_that_is_left_gives_its_place_to_one_who_waits():
    introspector, woken = Introspector(CONFIG), []
    with introspector.begin(bearer("abc")) as asking:
        waiting = introspector.begin(bearer("abc"))
        assert isinstance(waiting, Wait)
        waiting.on_ready(woken.append)
        assert isinstance(asking, Introspect)
    assert woken == [True]
    assert isinstance(waiting.resume(), Introspect)


def test_abandoned_steps_are_released_by_the_garbage_collector():
    introspector = Introspector(CONFIG)
    introspector.begin(bearer("abc"))  # nobody keeps it
    assert introspector.snapshot().in_flight == 0
    asking = introspector.begin(bearer("abc"))
    waiting = introspector.begin(bearer("abc"))
    # A circle: the wait is kept by what it calls.
    circle = {"wait": waiting}
    circle["call"] = lambda ready, circle=circle: circle
    waiting.on_ready(circle["call"])
    gone = weakref.ref(circle["call"])
    del waiting, circle
    gc.collect()
    assert gone() is None
    asking.close()
    assert introspector.snapshot().in_flight == 0


def test_nothing_shows_a_token_or_a_secret(caplog):
    caplog.set_level(logging.DEBUG, logger="tokenward")
    introspector = Introspector({**CONFIG, "introspection_params": {"key": "s3cr3t-parameter"}})
    secrets = ["t0ken-of-alice", "czNjcjN0LW9mLW91cnM=", "s3cr3t-parameter"]
    request = bearer("t0ken-of-alice", target="/?access_token=t0ken-of-alice")
    step, allow = introspector.begin(request), None
    wait = introspector.begin(request)
    shown = [repr(one) for one in (request, step, wait, introspector, introspector.policy({}))]
    allow = answer(step)
    shown += [repr(allow), repr(introspector.lookup(Request("GET", "/"))), introspector.metrics()]
    introspector.begin(bearer("t0ken-of-alice-2")).fail("connect").fail("tls")
    for wrong in (
        lambda: Request("GET", "/", [("Authorization", "Bearer t0ken-of-alice\u20ac")]),
        lambda: Request("GET", "/", [("Authorization", "Bearer t0ken-of-alice\ud800")]),
        lambda: Request("GET", "/", [("Authorization", object())]),
        lambda: Request("GET", "/", ["Bearer t0ken-of-alice"]),
        lambda: answer(step),
        lambda: Introspector({**CONFIG, "authorization_value": "Basic czNjcjN0LW9mLW91cnM=\r\n"}),
        lambda: introspector._asgi({"headers": [("Authorization", "Bearer t0ken-of-alice")]}),
    ):
        with pytest.raises((ValueError, TypeError, RuntimeError)) as raised:
            wrong()
        shown.append("".join(traceback.format_exception_only(raised.type, raised.value)))
    shown += [record.getMessage() + str(record.__dict__) for record in caplog.records]
    assert any("endpoint_unreachable" in one for one in shown)
    for secret in secrets:
        for text in shown:
            assert secret not in text


def test_text_beyond_latin1_is_given_as_bytes():
    introspector = Introspector({**CONFIG, "introspect_request": True})
    step = introspector.begin(Request("GET", "/é".encode(), [(b"Authorization", b"Bearer abc")]))
    assert dict(step.headers)["X-Request-Path"] == "/%C3%A9"
    step = introspector.begin(Request("GET", "/\xe9", [("Authorization", "Bearer abc")]))
    assert dict(step.headers)["X-Request-Path"] == "/%E9"


def test_integers_keep_their_digits():
    introspector = Introspector(CONFIG)
    digits = "9" * 5000
    body = '{"active":true,"sub":"a","id":12345678901234567890123,"long":%s,"f":1.5}' % digits
    claims = introspector.begin(bearer("abc")).reply(200, JSON, body.encode()).claims
    assert claims["id"] == 12345678901234567890123
    assert (str(claims["long"]), claims["f"]) == (digits, 1.5)


def test_log_lines_carry_their_reason(caplog):
    introspector = Introspector(CONFIG)
    introspector.begin(bearer("abc")).reply(403, [], b"")
    (record,) = caplog.records
    assert (record.name, record.levelname, record.reason) == ("tokenward", "ERROR", "endpoint_refused")
    assert record.fields["status"] == "403"


def test_a_log_handler_that_raises_changes_no_decision(monkeypatch):
    class Broken(logging.Handler):
        def emit(self, record):
            raise RuntimeError("the disk is full")

    logger, unraisable = logging.getLogger("tokenward"), []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)
    handler = Broken()
    logger.addHandler(handler)
    try:
        assert Introspector(CONFIG).begin(bearer("abc")).reply(403, [], b"").reason is Reason.ENDPOINT_REFUSED
    finally:
        logger.removeHandler(handler)
    assert len(unraisable) == 1


def test_a_log_handler_may_use_the_introspector(caplog):
    introspector, seen = Introspector(CONFIG), []

    class Curious(logging.Handler):
        def emit(self, record):
            seen.append(introspector.snapshot().in_flight)
            introspector.lookup(bearer("abc"))

    handler = Curious()
    logging.getLogger("tokenward").addHandler(handler)
    try:
        introspector.begin(bearer("abc")).reply(403, [], b"")
    finally:
        logging.getLogger("tokenward").removeHandler(handler)
    assert seen == [0]


def test_threads_share_an_introspector_and_one_call(endpoint):
    introspector = Introspector(endpoint.config, CONSUMERS)
    endpoint.hold()
    decisions = []
    threads = [
        threading.Thread(target=lambda: decisions.append(introspector.authenticate(bearer("alice-1")))) for _ in range(50)
    ]
    for thread in threads:
        thread.start()
    while introspector.snapshot().waits < 49:
        pass
    endpoint.release()
    for thread in threads:
        thread.join(10)
    assert sorted(allow.source for allow in decisions) == ["endpoint"] + ["waiting"] * 49
    assert endpoint.calls == ["alice-1"]


def test_copies_and_pickles_of_an_introspector_are_refused():
    with pytest.raises(TypeError):
        pickle.dumps(Introspector(CONFIG))
    with pytest.raises(TypeError):
        copy.copy(Introspector(CONFIG).lookup(Request("GET", "/")))


def test_managed_names_are_known_in_every_spelling():
    assert tokenward.is_managed("x_consumer.ID") and tokenward.is_managed(b"X-Credential-Sub")
    assert not tokenward.is_managed("X-Consumers")


def test_prometheus_client_collects_the_counters(endpoint):
    from prometheus_client import CollectorRegistry

    from tokenward.prometheus import Collector

    introspector = Introspector(endpoint.config)
    registry = CollectorRegistry()
    registry.register(Collector(introspector))
    introspector.authenticate(bearer("alice-1"))
    introspector.authenticate(bearer("alice-1"))
    introspector.authenticate(Request("GET", "/"))
    assert registry.get_sample_value("tokenward_hits_total") == 1
    assert registry.get_sample_value("tokenward_decisions_total", {"outcome": "deny", "reason": "token_missing"}) == 1
    assert registry.get_sample_value("tokenward_introspection_duration_seconds_count") == 1


def test_hits_that_are_not_kept_grow_nothing(endpoint):
    """100 000 requests, a tenth of them with tokens of their own, and allows that are forgotten at once."""
    introspector = Introspector({**endpoint.config, "cache": {"capacity": 100}})
    answer(introspector.begin(bearer("hot")))
    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": []}

    def run(number):
        for index in range(number):
            scope["headers"] = [(b"authorization", b"Bearer hot")]
            assert type(introspector._asgi(scope)) is dict
            introspector.lookup(bearer("hot")).claims
            if index % 10 == 0:
                answer(introspector.begin(bearer(f"cold-{index}")))

    run(20_000)
    gc.collect()
    before = resident()
    run(80_000)
    gc.collect()
    assert resident() - before < 4 << 20


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_a_sub_interpreter_is_refused_with_a_clear_error():
    interpreters = pytest.importorskip("_xxsubinterpreters")
    other = interpreters.create()
    try:
        with pytest.raises(interpreters.RunFailedError, match="subinterpreters"):
            interpreters.run_string(other, "import tokenward")
    finally:
        interpreters.destroy(other)


def test_a_step_that_is_dropped_by_an_exception_wakes_who_waits_and_leaves_the_exception(introspector):
    request, woken = Request("GET", "/", [("Authorization", "Bearer alice-1")]), []

    def waits():
        wait = introspector.begin(request)
        wait.on_ready(lambda ready: woken.append((ready, json.loads("[1]"))))
        woken.append(wait)
        return 1 / 0

    for _ in range(20):
        woken.clear()
        with pytest.raises(ZeroDivisionError):
            print(introspector.begin(request), waits())
        wait, call = woken
        assert call == (True, [1])
        wait.resume().close()
    assert introspector.snapshot().in_flight == 0
