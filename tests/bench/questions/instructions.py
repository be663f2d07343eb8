"""How many instructions is a hit? By callgrind, in a process of its own: the difference of two runs, so that what starts and stops does not count."""

import re
import tempfile
from pathlib import Path

import hosts
from nginx import exchange

TOKEN = hosts.token_of(7, 43)
# LuaJIT compiles what it finds hot, not always the same: the more requests, the less of that is in the difference.
RUNS = [2000, 10_000]


def ask(options, servers, say):
    rows = []
    for name in hosts.families(options.peers).get("nginx", []):
        for kind in ["memory"] if options.quick else ["memory", "proxied"]:
            totals = [collected(name, kind, count, servers) for count in RUNS]
            row = {"peer": name, "kind": kind, "instructions": (totals[1] - totals[0]) / (RUNS[1] - RUNS[0])}
            rows.append(row)
            say(f"instructions, {kind}, {name}: {row['instructions']:.0f}")
    return {"rows": rows}


def collected(name, kind, count, servers):
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            wrapper = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", f"--log-file={log}"]
            with hosts.start(name, servers, wrapper=wrapper, main="master_process off;", capacity=1000) as host:
                exchange(host.port, TOKEN, count, f"/{kind}/orders/7")
            # A process that had to be killed, on a busy machine, has not counted.
            if found := re.search(r"Collected : (\d+)", log.read_text()):
                return int(found[1])
    raise hosts.Failure(f"{name}: callgrind has counted nothing")
