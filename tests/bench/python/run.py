"""Side by side on uvicorn: a trivial ASGI application bare, behind Tokenward, behind Authlib's resource protector, behind fastmcp's
verifier. Every way has the answer in its cache.

    tests/bench/python/run [--rounds 9] [--seconds 2] [--json FILE]
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import harness  # noqa: E402
import hosts  # noqa: E402
import lookup  # noqa: E402

NAMES = ["bare", "tokenward", "authlib", "fastmcp"]
TOKEN = "2YotnFZFEjr1zCsicMWpAA2YotnFZFEjr1zCsicMWpAA"


class Endpoint(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps(lookup.REPLY).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def started(name, endpoint):
    port = hosts.free_port()
    command = [sys.executable, "-m", "uvicorn", "apps:app", "--port", str(port), "--no-access-log", "--log-level", "error"]
    environment = {**os.environ, "APP": name, "INTROSPECTION_URL": endpoint, "FASTMCP_LOG_ENABLED": "false"}
    process = subprocess.Popen(command, cwd=HERE, env=environment)
    url = f"http://127.0.0.1:{port}/"
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError):
            if harness.fetch(url)[0] in (200, 401):
                return process, url
        time.sleep(0.05)
    process.kill()
    raise SystemExit(f"{name} did not start")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--json")
    parser.add_argument("only", nargs="*", help=f"some of {', '.join(NAMES)}")
    options = parser.parse_args()
    endpoint = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=endpoint.serve_forever, daemon=True).start()
    names = [name for name in NAMES if not options.only or name in options.only]
    running, targets = [], []
    try:
        for name in names:
            process, url = started(name, f"http://127.0.0.1:{endpoint.server_port}/introspect")
            running.append(process)
            targets.append(harness.Target(f"{name}={process.pid}={url}" + ("=open" if name == "bare" else "")))
        results = harness.measure(targets, TOKEN, options.rounds, options.seconds)
    finally:
        for process in running:
            process.terminate()
            process.wait()
    for line in harness.describe(results):
        print(line)
    results["lookup_ns"] = lookup.measured()
    build = results["lookup_ns"]["building the request"]
    for name, nanoseconds in results["lookup_ns"].items():
        print(f"{name}: {nanoseconds:.0f} ns, {nanoseconds / build:.2f} x building the request")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
