#!/usr/bin/env python3
"""An introspection endpoint for the C examples: `alice` and `bob` are active, everything else is not. It takes 100 ms, so that
requests meet. Prints its port, and on SIGTERM how many calls it got."""

import http.server
import json
import signal
import sys
import time
import urllib.parse

calls = []


class Endpoint(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        token = form["token"][0]
        calls.append(token)
        time.sleep(0.1)
        known = token in ("alice", "bob") and self.headers["Authorization"] == "Basic eA=="
        claims = {"active": True, "username": token, "realm": {"roles": ["reader"]}} if known else {"active": False}
        body = json.dumps(claims).encode()
        self.send_response(503 if token == "broken" else 200)
        for n in range(100):  # more than a program may have thought of
            self.send_header(f"X-Filler-{n}", "x")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def stop(*_):
    print(" ".join(sorted(calls)), flush=True)
    sys.exit(0)


signal.signal(signal.SIGTERM, stop)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
server.daemon_threads = True
print(server.server_address[1], flush=True)
server.serve_forever()
