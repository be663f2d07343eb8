"""What a hit costs when it is called from Python: its parts, in nanoseconds, and as multiples of building the request.

Alternating rounds in one process; medians. CPU time of the thread.
"""

import json
import statistics
import sys
import time

from tokenward import Introspector, Request

TOKEN = "Bearer 2YotnFZFEjr1zCsicMWpAA2YotnFZFEjr1zCsicMWpAA"
HEADERS = [
    ("Host", "api.example"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
    ("Accept", "application/json"),
    ("Accept-Encoding", "gzip, deflate, br"),
    ("Accept-Language", "en-GB,en;q=0.9"),
    ("Authorization", TOKEN),
    ("X-Request-Id", "6f1d5b5f-0c11-4a36-9a3b-7d3f0a525d3c"),
    ("Connection", "keep-alive"),
]
REPLY = {
    "active": True,
    "username": "alice",
    "scope": "orders:read orders:write",
    "client_id": "app",
    "token_type": "Bearer",
    "exp": 4102444800,
    "iat": 1700000000,
    "sub": "alice",
    "iss": "https://as.example",
}
NUMBER = 20_000


def parts():
    config = {"introspection_url": "https://as.example/", "authorization_value": "Basic eA==", "ttl": 600}
    introspector = Introspector(config, [{"id": "7", "username": "alice"}])
    request = Request("GET", "/orders?page=2", HEADERS)
    introspector.begin(request).reply(200, [("content-type", "application/json")], json.dumps(REPLY).encode())
    allow = introspector.lookup(request)
    path, query, raw = b"/orders", b"page=2", [(name.lower().encode(), value.encode()) for name, value in HEADERS]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1), "scheme": "http", "method": "GET", "root_path": "", "path": "/orders",
        "raw_path": path, "query_string": query, "headers": raw, "state": {},
    }  # fmt: skip
    lookup, asgi = introspector.lookup, introspector._asgi

    def nothing(loops):
        for _ in loops:
            pass

    def build(loops):
        for _ in loops:
            Request("GET", "/orders?page=2", HEADERS)

    def look_up(loops):
        for _ in loops:
            lookup(request)

    def identity(loops):
        for _ in loops:
            allow.identity

    def set_headers(loops):
        for _ in loops:
            allow.set_headers

    def claims(loops):
        for _ in loops:
            lookup(request).claims

    def in_asgi(loops):
        for _ in loops:
            asgi(scope, None)

    def copy(loops):
        for _ in loops:
            dict(scope)

    return {
        "nothing": nothing,
        "building the request": build,
        "lookup": look_up,
        "lookup and claims": claims,
        "allow.identity": identity,
        "allow.set_headers": set_headers,
        "a hit of the ASGI middleware": in_asgi,
        "of that, copying the scope": copy,
    }


def measured(rounds=15):
    subjects = parts()
    spent = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, subject in subjects.items():
            began = time.thread_time_ns()
            subject(range(NUMBER))
            spent[name].append((time.thread_time_ns() - began) / NUMBER)
    loop = statistics.median(spent.pop("nothing"))
    return {name: statistics.median(times) - loop for name, times in spent.items()}


if __name__ == "__main__":
    found = measured()
    for name, nanoseconds in found.items():
        print(f"{name}: {nanoseconds:.0f} ns, {nanoseconds / found['building the request']:.2f} x", file=sys.stderr)
    json.dump(found, sys.stdout, indent=1)
