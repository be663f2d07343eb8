#!/usr/bin/env python3
"""Gives the vectors in a form that Lua can play: one JSON array on standard output.

Texts that may hold any byte are in hex, what is configuration is exact text, and what `like` refers to is filled in.
"""

import json
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "vectors"
MARK = "@number@"
NUMBER = re.compile(f'"{MARK}([^"@]*){MARK}"')


def read(text):
    """Numbers as they are written: there are some that no double can hold."""
    keep = lambda digits: f"{MARK}{digits}{MARK}"  # noqa: E731
    return json.loads(text, parse_float=keep, parse_int=keep)


def exact(value):
    return NUMBER.sub(r"\1", json.dumps(value, ensure_ascii=False))


def number(value):
    return float(value.replace(MARK, "")) if isinstance(value, str) else value


def octets(value):
    if isinstance(value, list):
        return b"".join(map(octets, value))
    if isinstance(value, dict):
        if "hex" in value:
            return bytes.fromhex(value["hex"])
        return octets(value["text"]) * int(number(value["times"]))
    return value.encode()


def coded(value):
    return None if value is None else octets(value).hex()


def lines(value):
    return [[coded(name), coded(content)] for name, content in value]


def filled(config):
    given = {}
    if "introspection_url" not in config:
        given["introspection_url"] = "https://as.example/introspect"
    if "authorization_value" not in config and "client_auth" not in config:
        given["authorization_value"] = "Basic cnM6c2VjcmV0"
    return exact({**given, **config})


FORMS = {
    "headers": lines, "set": lines, "response_headers": lines, "remove": lambda names: [coded(name) for name in names],
    "trailers": lambda names: [coded(name) for name in names], "target": coded, "body": coded, "forget": coded,
    "policy": exact, "replace_consumers": exact, "replace_config": filled, "time_left": number, "deadline": number,
    "expires": number, "number": number, "status": number, "calls": number, "at": lambda at: (
        {name: number(value) for name, value in at.items()} if isinstance(at, dict) else number(at)),
    "claims": lambda claims: {pointer: exact(value) for pointer, value in claims.items()},
    "snapshot": lambda counters: json.loads(exact(counters)),
}


def formed(value):
    if isinstance(value, dict):
        return {name: FORMS[name](member) if name in FORMS and not (name in ("target", "body") and member is None)
                else formed(member) for name, member in value.items()}
    return value


def step(raw, begun):
    made = formed(raw)
    if "begin" in made:
        begin = made["begin"]
        if "like" in begin:
            begin = made["begin"] = {**begun[begin["like"]], **begin}
        begun[begin["as"]] = begin
    return made


def vector(raw):
    made = {name: raw[name] for name in ["name", "select", "env", "load"] if name in raw}
    if "kong" in raw or "config_text" in raw:
        made["text"] = raw.get("kong", raw.get("config_text"))
    elif "document" in raw:
        made["text"] = exact(raw["document"])
    else:
        config = raw.get("config", {})
        made["text"] = exact(config) if raw.get("bare") else filled(config)
    if "consumers" in raw:
        made["consumers"] = exact(raw["consumers"])
    made["files"] = {name: coded(content) for name, content in raw.get("files", {}).items()}
    begun = {}
    made["steps"] = [step(one, begun) for one in raw.get("steps", [])]
    return made


def main():
    made = []
    for file in sorted(FOLDER.glob("*.json")):
        if file.stem not in ("sentences", "elsewhere"):
            made += [{"area": file.stem, **vector(raw)} for raw in read(file.read_text())]
    json.dump(made, sys.stdout)


if __name__ == "__main__":
    main()
