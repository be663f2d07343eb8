#!/usr/bin/env python3
"""What protecting a location of nginx costs: CPU time per request on cache hits, against the same location unprotected.

    tests/bench/nginx.py [--rounds 9] [--seconds 2] [--json FILE]     proxied and empty_gif, protected and not; proxied also
                                                                     against a location whose upstream is sent the same bytes
    tests/bench/nginx.py --instructions                              of a protected hit minus unprotected, by callgrind

One worker; one introspection server and one upstream of their own processes. Needs nginx, wrk (or valgrind) and the module built:
`make -C bindings/nginx module`. `tests/bench/harness.py` says how it is measured.
"""

import argparse
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

import harness

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
MODULE = TARGET / "nginx/ngx_http_tokenward_module.so"
NGINX = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
# What a server says of a person's token, as in RFC 7662, section 2.2, ...
TOKEN = "2YotnFZFEjr1zCsicMWpAAx8vkq3Lh5TzUoWn0R4sGd"
REPLY = {
    "active": True, "scope": "orders:read orders:write", "client_id": "l238j323ds-23ij4", "username": "jdoe",
    "token_type": "Bearer", "exp": 4102444800, "iat": 1419350238, "sub": "Z5O3upPC88QrAjx00dis",
    "aud": "https://protected.example.net/resource", "iss": "https://server.example.com/",
}
# ... and of an application's, as of the grant `client_credentials`.
APPLICATION_TOKEN = "mF9xB5f1Z0xJq4tKTlKvrN8w2bHc7sUeyDaG3iPo6Lk"
APPLICATION_REPLY = {"active": True, "client_id": "billing", "scope": "orders:read", "exp": 4102444800}
TOKENS = {"": TOKEN, " application": APPLICATION_TOKEN}
# What the upstream is then told, as an operator would write it by hand: nginx takes its time for longer requests, whoever made them so.
WRITTEN = {
    "": {
        "X-Credential-Scope": "orders:read orders:write", "X-Credential-Client-ID": "l238j323ds-23ij4",
        "X-Credential-Identifier": "jdoe", "X-Credential-Token-Type": "Bearer", "X-Credential-Exp": 4102444800,
        "X-Credential-Iat": 1419350238, "X-Credential-Sub": "Z5O3upPC88QrAjx00dis",
        "X-Credential-Aud": "https://protected.example.net/resource", "X-Credential-Iss": "https://server.example.com/",
        "X-Consumer-ID": "7d3f0a52-5d3c-4a36-9a3b-6f1d5b5f0c11", "X-Consumer-Custom-ID": "customer-1",
        "X-Consumer-Username": "jdoe",
    },
    " application": {"X-Credential-Client-ID": "billing", "X-Credential-Scope": "orders:read", "X-Credential-Exp": 4102444800},
}
REPLIES = {TOKEN: REPLY, APPLICATION_TOKEN: APPLICATION_REPLY}


class AuthorizationServer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        body = json.dumps(REPLIES[asked["token"][0]]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Nginx:
    """An nginx with these servers, until the end of a `with`."""

    def __init__(self, http, module=True, wrapper=(), single=False, before=""):
        self.folder = Path(tempfile.mkdtemp())
        paths = " ".join(f"{name}_temp_path {self.folder}/{name};" for name in
                         ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
        text = [
            before,
            f"load_module {MODULE};" if module else "",
            "user root;" if os.geteuid() == 0 else "",
            f"daemon off; worker_processes 1; error_log stderr error; pid {self.folder}/pid;",
            "master_process off;" if single else "",
            "events { worker_connections 4096; }",
            f"http {{ access_log off; keepalive_requests 100000000; {paths}\n{http} }}",
        ]
        (self.folder / "nginx.conf").write_text("\n".join(text))
        self.process = subprocess.Popen([*wrapper, NGINX, "-e", "stderr", "-p", self.folder,
                                         "-c", self.folder / "nginx.conf"])

    def __enter__(self):
        return self

    def wait(self, port):
        for _ in range(2000):
            if self.process.poll() is not None:
                raise SystemExit("nginx did not start")
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.01)
        raise SystemExit("nginx does not listen")

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)
        shutil.rmtree(self.folder)


class Scene:
    """An introspection server, an upstream, and the configuration of the servers that are compared."""

    NAMES = ["proxied", "proxied protected", "gif", "gif protected"]
    WRITTEN = ["proxied written", "proxied written application"]

    def __enter__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), AuthorizationServer)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        upstream = free_port()
        self.upstream = Nginx(f"server {{ listen 127.0.0.1:{upstream}; location / {{ return 200 'hello'; }}\n"
                              "location = /length { return 200 $request_length; } }",
                              module=False)
        self.upstream.wait(upstream)
        self.folder = Path(tempfile.mkdtemp())
        endpoint = f"127.0.0.1:{self.server.server_address[1]}"
        config = {
            "introspection_url": f"http://{endpoint}/introspect", "authorization_value": "Basic cnM6c2VjcmV0", "ttl": 3600,
            "consumers": [{"id": "7d3f0a52-5d3c-4a36-9a3b-6f1d5b5f0c11", "username": "jdoe", "custom_id": "customer-1"}],
        }
        (self.folder / "tokenward.json").write_text(json.dumps(config))
        self.ports = {name: free_port() for name in self.NAMES + self.WRITTEN}
        servers = []
        for name, port in self.ports.items():
            protected = "tokenward on;" if "protected" in name else ""
            content = "empty_gif;" if "gif" in name else (
                "proxy_pass http://upstream; proxy_http_version 1.1; proxy_set_header Connection '';")
            if name in self.WRITTEN:
                lines = {"Authorization": "", **WRITTEN[name.removeprefix("proxied written")]}
                content += "".join(f"proxy_set_header {line} '{value}';" for line, value in lines.items())
            servers.append(
                f"server {{ listen 127.0.0.1:{port}; location / {{ {protected} {content} }}\n"
                f"location = /introspect {{ internal; proxy_pass http://{endpoint}/introspect; }} }}")
        self.http = (
            f"tokenward_config {self.folder}/tokenward.json; tokenward_endpoint /introspect; tokenward_zone 1m;\n"
            f"upstream upstream {{ server 127.0.0.1:{upstream}; keepalive 64; }}\n" + "\n".join(servers))
        return self

    def url(self, name):
        return f"http://127.0.0.1:{self.ports[name]}/orders/7"

    def __exit__(self, *_):
        self.upstream.__exit__()
        self.server.shutdown()
        shutil.rmtree(self.folder)


def check_written(scene):
    """Protected or written by hand, the upstream is sent as much."""
    for whose, token in TOKENS.items():
        pair = []
        for name in ["proxied protected", "proxied written" + whose]:
            status, body = harness.fetch(f"http://127.0.0.1:{scene.ports[name]}/length", token)
            pair.append((status, int(body)))
        # The host's name there is that of the upstream in both.
        if pair[0] != pair[1] or pair[0][0] != 200:
            raise SystemExit(f"{whose}: the upstream is sent {pair[0][1]} bytes protected, {pair[1][1]} written by hand")


def costs(options):
    results = {}
    with Scene() as scene, Nginx(scene.http) as nginx:
        nginx.wait(scene.ports["gif"])
        check_written(scene)
        for name in ["proxied", "gif"]:
            for whose, token in TOKENS.items():
                targets = [harness.Target(f"{name}={nginx.process.pid}={scene.url(name)}=open"),
                           harness.Target(f"{name} protected={nginx.process.pid}={scene.url(name + ' protected')}")]
                if name == "proxied":
                    targets.append(harness.Target(
                        f"proxied written{whose}={nginx.process.pid}={scene.url('proxied written' + whose)}=open"))
                results[name + whose] = harness.measure(targets, token, options.rounds, options.seconds)
                print(f"{name}{whose}:", file=sys.stderr)
                for line in harness.describe(results[name + whose]):
                    print(line, file=sys.stderr)
    return results


def instructions():
    """Per request, by the difference of two runs over one connection."""
    counts = {}
    with Scene() as scene:
        for name in scene.NAMES + ["proxied written"]:
            for whose, token in TOKENS.items():
                port = scene.ports[name + whose if "written" in name else name]
                totals = []
                for rounds in [500, 1500]:
                    wrapper = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
                    folder = Path(tempfile.mkdtemp())
                    log = folder / "log"
                    with Nginx(scene.http, wrapper=[*wrapper, f"--log-file={log}"], single=True) as nginx:
                        nginx.wait(port)
                        exchange(port, token, rounds)
                    totals.append(int(re.search(r"Collected : (\d+)", log.read_text())[1]))
                    shutil.rmtree(folder)
                counts[name + whose] = (totals[1] - totals[0]) / 1000
    for name in ["proxied", "gif"]:
        for whose in TOKENS:
            counts[f"{name}{whose}: protected minus unprotected"] = counts[f"{name} protected{whose}"] - counts[name + whose]
    for whose in TOKENS:
        counts[f"proxied{whose}: protected minus written"] = counts["proxied protected" + whose] - counts["proxied written" + whose]
    for name, count in counts.items():
        print(f"{name}: {count:.0f} instructions", file=sys.stderr)
    return counts


def exchange(port, token, rounds, target="/orders/7"):
    request = (f"GET {target} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\nAccept: */*\r\n\r\n").encode()
    with socket.create_connection(("127.0.0.1", port)) as one:
        answers = one.makefile("rb")
        for _ in range(rounds):
            one.sendall(request)
            status, length = answers.readline(), 0
            if b" 200 " not in status:
                raise SystemExit(f"answered {status!r}")
            while (line := answers.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            answers.read(length)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--json", help="where the results go; standard output otherwise")
    options = parser.parse_args()
    text = json.dumps(instructions() if options.instructions else costs(options), indent=1)
    if options.json:
        Path(options.json).write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
