#!/usr/bin/env python3
"""What protecting a location by resty.tokenward costs: CPU time per request on cache hits, against the same location unprotected.

    tests/bench/openresty.py [--rounds 9] [--seconds 2] [--json FILE]

One worker. `client` is the answer about an application's token: three headers for the upstream. `rfc` is RFC 7662's example with a
consumer: thirteen. `module` and `request` are gates with `direct = "module"` and `direct = false`; `context` one with `context = true`. `floor`
is a location whose access_by_lua does nothing.
Needs nginx with the Lua module, wrk, and target/shipped/libtokenward.so. `tests/bench/harness.py` says how it is measured.
"""

import argparse
import json
import sys
from pathlib import Path

import harness
from nginx import REPLY, ROOT, TARGET, TOKEN, Nginx, free_port

MODULES = Path("/usr/lib/nginx/modules")
CLIENT = {"active": True, "scope": "orders:read", "client_id": "billing", "exp": 4102444800}
# Name: the answer, and what is set of a gate beside it.
GATES = {
    "client": (CLIENT, ""),
    "rfc": (REPLY, ""),
    "client_module": (CLIENT, 'direct = "module",'),
    "rfc_module": (REPLY, 'direct = "module",'),
    "client_request": (CLIENT, "direct = false,"),
    "rfc_request": (REPLY, "direct = false,"),
    "client_context": (CLIENT, "context = true,"),
    "rfc_context": (REPLY, "context = true,"),
}


def gate(name):
    answer, more = GATES[name]
    config = json.dumps({"introspection_url": "http://127.0.0.1:1/", "authorization_value": "Basic eA==", "ttl": 3600})
    consumers = json.dumps([{"id": "7d3f0a52-5d3c-4a36-9a3b-6f1d5b5f0c11", "username": "jdoe", "custom_id": "customer-1"}])
    return f"""{name} = assert(require("resty.tokenward").new({{
        config = [=[{config}]=], consumers = [=[{consumers}]=], library = "{TARGET}/shipped/libtokenward.so",
        {more}
        transport = function()
            return {{ status = 200, headers = {{ {{ "content-type", "application/json" }} }}, body = [=[{json.dumps(answer)}]=] }}
        end,
    }})),"""


def servers(upstream, port):
    contents = {
        "gif": "empty_gif;",
        "proxied": "proxy_pass http://upstream; proxy_http_version 1.1; proxy_set_header Connection '';",
    }
    locations = []
    for kind, content in contents.items():
        locations.append(f"location /{kind} {{ {content} }}")
        locations.append(f"location /{kind}-floor {{ access_by_lua_block {{ }} {content} }}")
        for name in GATES:
            access = f'access_by_lua_block {{ require("gates").{name}:access() }}'
            locations.append(f"location /{kind}-{name} {{ {access} {content} }}")
    return f"""
    lua_package_path "{ROOT}/bindings/openresty/lib/?.lua;;";
    init_worker_by_lua_block {{ package.loaded.gates = {{ {"".join(map(gate, GATES))} }} }}
    upstream upstream {{ server 127.0.0.1:{upstream}; keepalive 64; }}
    server {{ listen 127.0.0.1:{port}; {" ".join(locations)} }}"""


class OpenResty(Nginx):
    """nginx with the Lua module."""

    def __init__(self, http):
        super().__init__(http, module=False, before="".join(
            f"load_module {MODULES}/{name};" for name in ["ndk_http_module.so", "ngx_http_lua_module.so"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--json", help="where the results go; standard output otherwise")
    parser.add_argument("--kinds", nargs="+", default=["gif", "proxied"], choices=["gif", "proxied"])
    parser.add_argument("--gates", nargs="+", default=list(GATES), choices=list(GATES))
    options = parser.parse_args()
    upstream, port = free_port(), free_port()
    results = {}
    with Nginx(f"server {{ listen 127.0.0.1:{upstream}; location / {{ return 200 'hello'; }} }}", module=False) as behind:
        behind.wait(upstream)
        with OpenResty(servers(upstream, port)) as nginx:
            nginx.wait(port)
            for kind in options.kinds:
                targets = [harness.Target(f"{kind}={nginx.process.pid}=http://127.0.0.1:{port}/{kind}/orders/7=open")]
                targets.append(harness.Target(
                    f"{kind} floor={nginx.process.pid}=http://127.0.0.1:{port}/{kind}-floor/orders/7=open"))
                targets += [harness.Target(f"{kind} {name}={nginx.process.pid}=http://127.0.0.1:{port}/{kind}-{name}/orders/7")
                            for name in options.gates]
                results[kind] = harness.measure(targets, TOKEN, options.rounds, options.seconds)
                for line in harness.describe(results[kind]):
                    print(line, file=sys.stderr)
    text = json.dumps(results, indent=1)
    if options.json:
        Path(options.json).write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
