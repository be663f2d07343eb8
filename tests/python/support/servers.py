"""Servers for tests: an endpoint that does as it is told, and processes that talk in lines of JSON."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples/python"


class Endpoint:
    """An introspection endpoint in this process. Tokens are `NAME-ANYTHING`; NAME is the username, `bad` is inactive.

    `calls` are the tokens it was asked about; `hold()` keeps answers back until `release()`; `script` are functions of the handler that
    answer the next requests in its place.
    """

    def __init__(self):
        self.calls, self.script, self.connections = [], [], set()
        self.open = threading.Event()
        self.open.set()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                token = form["token"][0]
                endpoint.calls.append(token)
                endpoint.connections.add(self.client_address)
                endpoint.open.wait(30)
                if endpoint.script:
                    endpoint.script.pop(0)(self)
                    return
                name = token.split("-")[0]
                claims = {"active": False} if name == "bad" else claims_of(name)
                self.answer(200, json.dumps(claims))

            def answer(self, status, text, content_type="application/json"):
                body = text.encode() if isinstance(text, str) else text
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 1024

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/introspect"
        self.config = {"introspection_url": self.url, "authorization_value": "Basic dGVzdHM6czNjcjN0"}
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def hold(self):
        self.open.clear()

    def release(self):
        self.open.set()

    def close(self):
        self.release()
        self.server.shutdown()
        self.server.server_close()


def claims_of(name):
    return {"active": True, "username": name, "sub": f"subject of {name}", "scope": "api:read", "client_id": "app"}


class Process:
    """A program that is given lines of JSON and answers with one each."""

    def __init__(self, *command):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self.config = self._line()

    def ask(self, *words):
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        return self._line()

    def token(self, name, *scope):
        return self.ask("token", name, *scope)

    def _line(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def served(*command, port, folder=EXAMPLES, ready="/health", environment=None):
    """Runs a server until the end of the block; `port` is the one that it was told. Gives its URL, and what it said."""
    output = Path(os.environ["PYTEST_TMP"]) / f"server-{port}.log"
    with output.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder), **(environment or {})},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 30
        while True:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command} did not start: {output.read_text()}")
            with contextlib.suppress(OSError):
                get(url + ready)
                break
            time.sleep(0.05)
        yield url, process, output
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def get(url, token=None, headers=(), method="GET", data=None):
    """Status, headers and body of an answer."""
    request = urllib.request.Request(url, method=method, data=data, headers=dict(headers))
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()
