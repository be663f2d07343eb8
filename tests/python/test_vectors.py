"""Every vector of tests/vectors, through the Python API."""

import gc
import json
import logging
import warnings
from pathlib import Path

import pytest

from tokenward import Allow, Consumer, ConfigError, ConfigWarning, Deny, Introspect, Introspector, Request, Wait

FOLDER = Path(__file__).parent.parent / "vectors"
VECTORS = [
    pytest.param(vector, id=f"{file.stem}: {vector['name']}")
    for file in sorted(FOLDER.glob("*.json"))
    if file.stem not in ("sentences", "elsewhere")
    for vector in json.loads(file.read_text())
]
SKIPPED = {
    "consumers are not part of a bare configuration": "Python reads documents, which may have consumers",
}


@pytest.mark.parametrize("vector", VECTORS)
def test_vector(vector, tmp_path, monkeypatch, caplog):
    if reason := SKIPPED.get(vector["name"]):
        pytest.skip(reason)
    for name, value in vector.get("env", {}).items():
        monkeypatch.setenv(name, value)
    for name, content in vector.get("files", {}).items():
        (tmp_path / name).write_bytes(octets(content))
    caplog.set_level(logging.DEBUG, logger="tokenward")
    said = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            introspector = load(vector, tmp_path)
        except ConfigError as error:
            said += [str(error), repr(error)]
            expected = vector["load"].get("errors") or vector["load"]["consumers_errors"]
            compare_messages(error.problems, expected)
            introspector = None
    said += [str(warning.message) for warning in caught]
    assert all(warning.category is ConfigWarning for warning in caught)
    if introspector is not None:
        compare_loaded(vector.get("load", {}), caught, introspector)
        Player(introspector, vector["name"], caplog, said).play(vector.get("steps", []))
        said += [repr(introspector), repr(introspector.snapshot()), introspector.metrics()]
    said += [record.getMessage() + repr(record.__dict__) for record in caplog.records]
    search(vector, "\n".join(said))


def load(vector, folder):
    consumers = vector.get("consumers")
    if "kong" in vector:
        (folder / "kong.yaml").write_text(vector["kong"])
        select = dict([vector["select"].split("=", 1)]) if "select" in vector else {}
        return Introspector.from_kong(folder / "kong.yaml", consumers=consumers, **select)
    text = json.dumps(vector["document"]) if "document" in vector else config_text(vector)
    (folder / "config.json").write_text(text)
    return Introspector(folder / "config.json", consumers)


def config_text(vector):
    if "config_text" in vector:
        return vector["config_text"]
    config = vector.get("config", {})
    return json.dumps(config if vector.get("bare") else filled(config))


def filled(config):
    front = {}
    if "introspection_url" not in config:
        front["introspection_url"] = "https://as.example/introspect"
    if "authorization_value" not in config and "client_auth" not in config:
        front["authorization_value"] = "Basic cnM6c2VjcmV0"
    return {**front, **config}


def compare_loaded(load, caught, introspector):
    assert not {"errors", "consumers_errors"} & load.keys(), "loading succeeded"
    if "warnings" in load:
        compare_messages([(None, str(warning.message)) for warning in caught], load["warnings"])
    if "consumers" in load:
        assert len(introspector.consumers) == len(load["consumers"])
        for consumer, expected in zip(introspector.consumers, load["consumers"]):
            assert isinstance(consumer, Consumer)
            for member, value in expected.items():
                seen = getattr(consumer, member)
                assert (list(seen) if isinstance(seen, tuple) else seen) == value


def compare_messages(found, expected):
    assert len(found) == len(expected), found
    for problem, want in zip(found, expected):
        path, message = problem
        whole = message if path is None else f"`{path}`: {message}"
        if path is not None and "path" in want:
            assert path == want["path"]
        for part in want.get("contains", []):
            assert part in whole
        for part in want.get("lacks", []):
            assert part not in whole


def octets(written):
    if isinstance(written, str):
        return written.encode()
    if isinstance(written, list):
        return b"".join(map(octets, written))
    if "hex" in written:
        return bytes.fromhex(written["hex"])
    return written["text"].encode() * written.get("times", 1)


def pairs(written):
    return [(octets(name), octets(value)) for name, value in written]


def encoded(lines):
    return [(name.encode(), value.encode()) for name, value in lines]


class Player:
    def __init__(self, introspector, name, caplog, said):
        self.introspector, self.caplog, self.said = introspector, caplog, said
        self.now, self.calls, self.begun, self.steps, self.woken = (1000.0, 1000.0), 0, {}, {}, []
        self.caplog.clear()

    def play(self, steps):
        for number, step in enumerate(steps):
            at = step.get("at")
            if at is not None:
                self.now = (at["wall"], at["mono"]) if isinstance(at, dict) else (at, at)
            expect = step.get("expect", {})
            logged = len(self.caplog.records)
            name, seen = self.act(step, expect)
            if isinstance(seen, Introspect):
                self.calls += 1
            if seen is not None:
                self.said.append(repr(seen))
                self.compare(seen, expect)
                if isinstance(seen, Wait):
                    seen.on_ready(lambda ready, name=name: self.woken.append((name, ready)))
                self.steps[name] = seen
            self.compare_around(expect, self.caplog.records[logged:])

    def act(self, step, expect):
        if "begin" in step:
            begin = step["begin"]
            if "like" in begin:
                begin = {**self.begun[begin["like"]], **begin}
            self.begun[begin["as"]] = begin
            policy = self.introspector.policy(begin["policy"]) if "policy" in begin else None
            if "needs_body" in expect:
                assert self.introspector.needs_body(request(begin, False), policy) == expect["needs_body"]
            return begin["as"], self.introspector.begin(request(begin, True), policy, now=self.now)
        if "reply" in step:
            headers = pairs(step.get("headers", [["content-type", "application/json"]]))
            exchange = self.steps.pop(step["reply"])
            body = octets(step.get("body", ""))
            return step["reply"], exchange.reply(step.get("status", 200), headers, body, now=self.now)
        if "fail" in step:
            return step["fail"], self.steps.pop(step["fail"]).fail(step["failure"], now=self.now)
        if "resume" in step:
            return step["resume"], self.steps.pop(step["resume"]).resume(now=self.now)
        if "drop" in step:
            del self.steps[step["drop"]]
            gc.collect(0)
        elif "forget" in step:
            forgotten = self.introspector.forget(octets(step["forget"]))
            assert expect.get("forgotten", forgotten) == forgotten
        elif "forget_all" in step:
            self.introspector.forget_all()
        elif "replace_consumers" in step:
            self.introspector.replace_consumers(step["replace_consumers"])
        else:
            self.introspector.replace_config(filled(step["replace_config"]))
        return None, None

    def compare(self, seen, expect):
        kinds = {"introspect": Introspect, "wait": Wait, "allow": Allow, "deny": Deny}
        for kind, expected in ((kind, expect[kind]) for kind in kinds if kind in expect):
            assert isinstance(seen, kinds[kind]), seen
            for member, value in expected.items():
                getattr(self, f"compare_{member}", self.compare_member)(seen, member, value)

    def compare_member(self, seen, member, value):
        assert getattr(seen, member) == value

    def compare_headers(self, seen, member, value):
        assert encoded(getattr(seen, member)) == pairs(value)

    compare_response_headers = compare_headers

    def compare_set(self, seen, _, value):
        self.compare_headers(seen, "set_headers", value)

    def compare_remove(self, seen, _, value):
        assert [name.encode("latin-1") for name in seen.remove_headers] == list(map(octets, value))

    def compare_body(self, seen, member, value):
        assert getattr(seen, member) == (None if value is None else octets(value))

    compare_target = compare_body

    def compare_time_left(self, seen, _, value):
        assert seen.time_left * 1000 == pytest.approx(value, abs=1e-6)

    def compare_identity(self, seen, _, value):
        identity = seen.identity
        if isinstance(value, dict):
            assert {identity.kind: identity.consumer.id} == value
        else:
            assert (identity.kind, identity.consumer) == (value, None)

    def compare_claims(self, seen, _, value):
        for pointer, expected in value.items():
            assert at(seen.claims, pointer) == expected

    def compare_reason(self, seen, _, value):
        assert str(seen.reason) == value

    def compare_number(self, seen, _, value):
        assert seen.reason == value

    def compare_around(self, expect, records):
        woken, self.woken = self.woken, []
        for member, ready in (("ready", True), ("let_go", False)):
            if member in expect:
                assert sorted(name for name, was in woken if was is ready) == expect[member]
        assert expect.get("calls", self.calls) == self.calls
        if "log" in expect:
            loud = [r.reason for r in records if r.levelno >= logging.WARNING and r.reason is not None]
            assert loud == expect["log"]
        if "snapshot" in expect:
            snapshot = self.introspector.snapshot()
            decisions = {str(reason): count for reason, count in snapshot.denied.items()} | {"allow": snapshot.allowed}
            for counter, value in expect["snapshot"].items():
                if counter == "decisions":
                    assert value == {name: decisions[name] for name in value}
                else:
                    assert getattr(snapshot, counter) == value, counter


def request(begin, with_body):
    return Request(
        octets(begin.get("method", "GET")),
        octets(begin.get("target", "/")),
        pairs(begin.get("headers", [])),
        trailers=[octets(name) for name in begin.get("trailers", [])],
        body=octets(begin["body"]) if with_body and "body" in begin else None,
    )


def at(claims, pointer):
    value = claims
    for segment in pointer.split("/")[1:]:
        segment = segment.replace("~1", "/").replace("~0", "~")
        try:
            value = value[int(segment)] if isinstance(value, list) else value[segment]
        except (KeyError, IndexError):
            return None
    return dict(value) if not pointer else value


def search(vector, text):
    secrets = list(vector.get("env", {}).values())
    secrets += [octets(content).decode(errors="replace").strip() for content in vector.get("files", {}).values()]
    config = vector.get("document") or vector.get("config") or {}
    if isinstance(config, dict):
        secrets.append(config.get("authorization_value"))
        auth = config.get("client_auth")
        secrets.append(auth.get("client_secret") if isinstance(auth, dict) else None)
        for member in ("introspection_params", "custom_introspection_headers"):
            if isinstance(config.get(member), dict):
                secrets += config[member].values()
    for begin in (step["begin"] for step in vector.get("steps", []) if "begin" in step):
        for name, value in pairs(begin.get("headers", [])):
            if name.lower() == b"authorization" and value.split():
                secrets.append(value.split()[-1].decode(errors="replace"))
        target = octets(begin.get("target", "/")).decode(errors="replace")
        secrets += [part[13:] for part in target.replace("?", "&").split("&") if part.startswith("access_token=")]
    for secret in secrets:
        if isinstance(secret, str) and len(secret) >= 6:
            assert secret not in text
