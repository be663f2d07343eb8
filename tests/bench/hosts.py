"""Starts what is measured, each with its configuration of peers/, and what is around it; stops all of it by its own process id.

Where a machine has more than one processor, the host that is measured has one for itself, and clients, authorization server and upstream share
the others: so a host of one worker and one of many threads have the same to work with.
"""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import harness

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
RUNS = TARGET / "bench/run"
PEERS = HERE / "peers"
SERVER = TARGET / "shipped/bench-server"
SBIN = os.environ["PATH"] + ":/usr/sbin"
NGINX = shutil.which("nginx", path=SBIN)
APACHE = shutil.which("apache2", path=SBIN)

PROCESSORS = sorted(os.sched_getaffinity(0))
HOSTS_PROCESSORS = set(PROCESSORS[-1:])
OTHERS_PROCESSORS = set(PROCESSORS[:-1] or PROCESSORS)

# Each peer: its family (the first of a family is the limit that the others are compared with), its configuration, its name in tables.
KINDS = {
    "nginx": ("nginx", "nginx.conf", "nginx, unprotected"),
    "nginx-tokenward": ("nginx", "nginx-tokenward.conf", "nginx, Tokenward module"),
    "nginx-lua": ("nginx", "nginx-lua.conf", "nginx, Tokenward Lua library"),
    "nginx-njs": ("nginx", "nginx-njs.conf", "nginx, auth_request and njs"),
    "apache": ("apache", "apache.conf", "Apache, unprotected"),
    "apache-oauth2": ("apache", "apache-oauth2.conf", "Apache, mod_oauth2"),
    "apache-openidc": ("apache", "apache-openidc.conf", "Apache, mod_auth_openidc"),
}
OPEN = {"nginx", "apache"}
OURS = {"nginx-tokenward", "nginx-lua"}
GIF = bytes.fromhex("47494638396101000100800100000000ffffff21f90401000001002c00000000010001000002024c01003b")


class Failure(Exception):
    """Something is not what it is said to be, so that a figure would mean nothing."""


def families(names):
    """The names by family, in order."""
    found = {}
    for name in names:
        found.setdefault(KINDS[name][0], []).append(name)
    return found


def title(name):
    return KINDS[name][2]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def most_files(wanted):
    """How many files a process may have open: as many as are wanted, where we may raise the limit so far."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            most = wanted
    return min(most, wanted)


def on_processors(processors):
    """For `preexec_fn`; and as many files as the machine allows."""
    def set_up():
        os.sched_setaffinity(0, processors)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return set_up


def as_others(*command, **options):
    """Runs a client, where clients run."""
    return subprocess.run([str(part) for part in command], preexec_fn=on_processors(OTHERS_PROCESSORS), check=True, capture_output=True,
                          text=True, **options).stdout


class Process:
    """A program until the end of a `with`. It is killed if it does not stop by itself."""

    def __init__(self, command, processors, **options):
        self.process = subprocess.Popen([str(part) for part in command], preexec_fn=on_processors(processors), **options)
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            for _ in range(15):
                # Again: one that comes just before a wait may be slept over.
                self.process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(timeout=1)
                    break
            else:
                for pid in reversed(harness.family(self.pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.process.wait()


class Around(Process):
    """The authorization server and the upstream."""

    def __init__(self):
        super().__init__([SERVER, "serve"], OTHERS_PROCESSORS, stdout=subprocess.PIPE, text=True)
        self.ports = json.loads(self.process.stdout.readline())
        # Tokens that nobody has seen yet begin here.
        self.fresh = 1_000_000_000

    def control(self, **settings):
        query = "&".join(f"{name}={str(value).lower()}" for name, value in settings.items())
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['control']}/?{query}", timeout=10) as answer:
            return json.loads(answer.read())

    def new_tokens(self, count):
        """The first of so many numbers that no token has had."""
        first = self.fresh
        self.fresh += count
        return first


class Host(Process):
    """A peer of KINDS, or `tls`."""

    def __init__(self, name, around, wrapper=(), main="", **settings):
        self.name, self.around, self.port = name, around, free_port()
        self.is_open = name in OPEN
        RUNS.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(dir=RUNS, prefix=f"{name}-"))
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 4 << 30 else None
        self.memory = Path(tempfile.mkdtemp(dir=memory, prefix="tokenward-bench-"))
        os.chmod(self.memory, 0o777)
        (self.memory / "www/memory/orders").mkdir(parents=True)
        (self.memory / "www/memory/orders/7").write_bytes(GIF)
        self.values = self.settings(main, **settings)
        for file in [*PEERS.glob("*-common.conf"), PEERS / "tokenward.json"]:
            self.fill(file, file.name)
        # Apache's children may have another user than its master.
        shutil.copy(RUNS / "tls.pem", self.memory)
        template = "tls.conf" if name == "tls" else KINDS[name][1]
        config = self.fill(PEERS / template, template)
        if "apache" in template:
            command = [APACHE, "-X" if wrapper else "-DFOREGROUND", "-f", config]
        else:
            command = [NGINX, "-e", "stderr", "-p", self.folder, "-c", config]
        processors = OTHERS_PROCESSORS if name == "tls" else HOSTS_PROCESSORS
        self.log = open(self.folder / "log", "w")
        super().__init__([*wrapper, *command], processors, stdout=subprocess.DEVNULL, stderr=self.log)
        self.wait()

    def settings(self, main, timeout=10, capacity=2_000_000, cache="shm", long_tokens=False, tls=0, log="error"):
        root = os.geteuid() == 0
        files = most_files(300_000)
        oauth2, openidc = (
            ("shm max_entries=1000&max_val_size=4096", "shm\nOIDCCacheShmMax 1000") if cache == "shm" else
            (f"file dir={self.memory}&clean_interval=86400&encrypt=false", f"file\nOIDCCacheDir {self.memory}\nOIDCCacheFileCleanInterval 86400")
        )
        return {
            "MAIN": f"daemon off; pid {self.folder}/pid; error_log stderr {log}; {'user root;' if root else ''} {main}",
            "CERTIFICATE": RUNS / "tls", "RUN": self.folder, "SHM": self.memory, "PEERS": PEERS, "ROOT": ROOT, "PORT": self.port,
            "UPSTREAM": self.around.ports["upstream"], "AUTHORIZATION_SERVER": self.around.ports["authorization_server"], "TLS": tls,
            "MODULES": "/usr/lib/nginx/modules", "APACHE_MODULES": "/usr/lib/apache2/modules", "APACHE_LOG": log,
            "APACHE_USER": "User www-data\nGroup www-data" if root else "",
            "TOKENWARD_MODULE": TARGET / "nginx/ngx_http_tokenward_module.so",
            "TOKENWARD_LIBRARY": TARGET / "shipped/libtokenward.so",
            "TIMEOUT": timeout, "TIMEOUT_MS": timeout * 1000, "CAPACITY": capacity,
            "ZONE_MB": max(1, capacity // 6000),
            # The others are left for connections.
            "FILES": files, "OPEN_FILES": min(capacity, 250_000, max(files // 2, files - 8192)),
            "OAUTH2_CACHE": oauth2, "OPENIDC_CACHE": openidc, "OPENIDC_ENCRYPT": "On" if long_tokens else "Off",
        }

    def fill(self, file, name):
        def value(found):
            return str(self.values[found[1]])
        to = self.folder / name
        to.write_text(re.sub(r"@([A-Z0-9_]+)@", value, file.read_text()))
        return to

    def wait(self):
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        log = (self.folder / "log").read_text()
        self.__exit__()
        raise Failure(f"{self.name} did not start: {log[-2000:]}")

    def url(self, kind):
        return f"http://127.0.0.1:{self.port}/{kind}/orders/7"

    def cpu(self):
        return sum(harness.on_cpu(pid) for pid in harness.family(self.pid))

    def memory_bytes(self):
        """What the host's processes hold, pages that they share counted once."""
        return sum(harness.held_bytes(pid) for pid in harness.family(self.pid))

    def __exit__(self, *_):
        super().__exit__()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.memory, ignore_errors=True)

    def check(self, kinds=("memory", "proxied")):
        """The locations are what they are said to be: otherwise a figure means nothing. Tells what was answered."""
        shown = {}
        for kind in kinds:
            number, refusal = self.around.new_tokens(1), 200 if self.is_open else 401
            for token, expected in [(None, refusal), (token_of(number, 43), 200), (f"inactive.{number}", refusal)]:
                before = self.around.control()["upstream"]
                status, body = harness.fetch(self.url(kind), token)
                reached = self.around.control()["upstream"] - before
                if (status != expected or (body == BODIES[kind]) != (expected == 200)
                        or reached != (1 if kind == "proxied" and expected == 200 else 0)):
                    raise Failure(f"{self.name}, {kind}: {status} {body[:300]!r} with the token {token}, {reached} requests to the upstream")
                shown[f"{kind}, {token.split('.')[0] if token else 'no'} token"] = status
        if "proxied" in kinds and not self.is_open:
            self.check_identity()
        return shown

    def check_identity(self):
        """The upstream is told whose token it is, also when the answer is remembered."""
        for _ in range(2):
            for number in [self.around.fresh + 11, self.around.fresh + 12]:
                _, body = harness.fetch(f"http://127.0.0.1:{self.port}/proxied/headers", token_of(number, 43))
                subjects = [value for name, value in json.loads(body) if name.endswith(("sub", "identifier")) and value == str(number)]
                if not subjects:
                    raise Failure(f"{self.name}: the upstream was not told that the token is {number}'s: {body.decode()[:1000]}")
        self.around.new_tokens(13)


# What a location answers; of `proxied`, it is the upstream's.
BODIES = {"memory": GIF, "proxied": b"hello"}


def token_of(number, length, head="person."):
    return head + str(number).zfill(length - len(head))


@contextlib.contextmanager
def around():
    """The authorization server, the upstream, and TLS in front of the former."""
    make_certificate()
    with Around() as servers:
        with Host("tls", servers) as tls:
            servers.tls = tls.port
            yield servers


def start(name, servers, **settings):
    return Host(name, servers, tls=servers.tls, **settings)


def make_certificate():
    """Of an authority of its own, for 127.0.0.1."""
    RUNS.mkdir(parents=True, exist_ok=True)
    if (RUNS / "tls.pem").exists():
        return
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj",
         "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", RUNS / "tls.key", "-out", RUNS / "tls.pem"],
        check=True, capture_output=True)


def load(host, kind, connections, seconds, head="person.", length=43, first=0, count=1, offset=0, alone=True):
    """A run of wrk, with tokens of load.lua: its figures, the host's CPU time, and the calls that were made. One that is not `alone` on its
    host does not wait for that to be idle afterwards."""
    before, asked = host.cpu(), host.around.control()
    text = as_others("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", HERE / "load.lua", host.url(kind), "--",
                     head, length, first, count, offset)
    spent, after = host.cpu() - before, host.around.control()
    figures = json.loads(text.strip().splitlines()[-1])
    figures["cpu_ns"] = spent
    figures["busy"] = spent / 1e9 / figures["seconds"]
    for name in ["active", "inactive", "upstream"]:
        figures[name] = after[name] - asked[name]
    if alone:
        settle(host)
    return figures


def settle(host, most_seconds=5):
    """Waits until the host is done with what clients left behind, so that the next one in turn has the processor to itself."""
    until, spent = time.monotonic() + most_seconds, host.cpu()
    while time.monotonic() < until:
        time.sleep(0.05)
        before, spent = spent, host.cpu()
        if spent - before < 1_000_000:
            break


def teach(host, count, length, head="person.", first=0, most_seconds=300, kind="memory"):
    """Has the host ask about so many tokens; says how long it took, and how many it knows."""
    began, known, seconds = time.monotonic(), 0, 1
    connections = min(64, count)
    while known < count and time.monotonic() < began + most_seconds:
        ran = load(host, kind, connections, seconds, head, length, first, count, known)
        # Some peers fail a few under load; a token that was not learnt shows as a miss where hits are measured.
        if ran["refused"] + ran["broken"] > ran["requests"] / 100:
            raise Failure(f"{host.name}: good tokens were refused: {ran}")
        if ran["requests"] >= count:
            known = count
            break
        # Requests that were under way at the end were cut off, and their tokens come again.
        known += max(ran["requests"] - 2 * connections, 1)
        left = most_seconds - (time.monotonic() - began)
        seconds = max(1, min(round((count - known) / (ran["requests"] / ran["seconds"]) + 0.5), int(left) + 1))
    return {"seconds": time.monotonic() - began, "known": min(known, count)}


def protected(options):
    return [name for name in options.peers if name not in OPEN]
