#!/usr/bin/env python3
"""Compares locations of running servers side by side, in alternating rounds.

    tests/bench/harness.py --token TOKEN [--rounds 9] [--seconds 2] [--connections 8] [--json FILE] NAME=PID=URL[=open] ...

Every target is a name, the process whose CPU time counts (its children count too: a master's workers, say), and a URL. The
first one is what the others are compared with. Rounds go A B C A B C ...: what disturbs the machine disturbs all of them
alike. `wrk` is the client, on one thread.

What a server's processes cost is read from /proc/PID/schedstat (nanoseconds on a CPU), before and after each round: CPU time
per request hardly depends on who else is busy. Requests per second stand beside it, with their spread. A target's ratio is
the median, over the rounds, of its CPU time per request by that of the first target in the same round; of requests per
second likewise.

Before anything is measured, every target must answer 401 without a token and with the upstream's answer with it; one marked
`open` must answer 200 to both. A round with a single answer other than 2xx is an error.

Standard library alone; needs wrk. Results are JSON.
"""

import argparse
import contextlib
import json
import re
import statistics
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path


class Target:
    def __init__(self, text):
        parts = text.split("=", 3)
        self.name, self.pid, self.url = parts[0], int(parts[1]), parts[2]
        self.is_open = parts[3:] == ["open"]
        self.rounds = []

    def check(self, token):
        """The location is what it is said to be: otherwise a figure means nothing."""
        expected = 200 if self.is_open else 401
        status, _ = fetch(self.url)
        if status != expected:
            raise SystemExit(f"{self.name}: {status} without a token, {expected} was expected")
        status, body = fetch(self.url, token)
        if status != 200:
            raise SystemExit(f"{self.name}: {status} with a token: {body[:200]!r}")

    def cpu(self):
        return sum(on_cpu(pid) for pid in family(self.pid))

    def run(self, token, seconds, connections, quiet=False):
        before = self.cpu()
        text = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-H", f"Authorization: Bearer {token}", self.url],
            check=True, capture_output=True, text=True,
        ).stdout
        spent = self.cpu() - before
        requests = int(re.search(r"(\d+) requests in", text)[1])
        if re.search(r"Non-2xx|Socket errors", text):
            raise SystemExit(f"{self.name}: not every request was answered with 2xx\n{text}")
        if not quiet:
            self.rounds.append({
                "requests": requests,
                "cpu_ns_per_request": spent / requests,
                "requests_per_second": float(re.search(r"Requests/sec: +([\d.]+)", text)[1]),
            })

    def values(self, what):
        return [one[what] for one in self.rounds]


def fetch(url, token=None):
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def family(pid):
    """A process and its children, theirs included."""
    found = [pid]
    # A child may end meanwhile, as nginx's cache loader does after a minute.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


def on_cpu(pid):
    """Nanoseconds that the threads of a process were on a CPU."""
    spent = 0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            spent += int((task / "schedstat").read_text().split()[0])
    return spent


def held_bytes(pid):
    """What a process holds of memory; of a page that several have, its share."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        found = re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0


def spread(values):
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return {
        "median": statistics.median(ordered), "min": ordered[0], "max": ordered[-1],
        "quartiles": [ordered[quarter], ordered[-1 - quarter]],
    }


def measure(targets, token, rounds=9, seconds=2, connections=8, progress=None):
    """Runs the rounds and gives the results, by name of target."""
    for target in targets:
        target.check(token)
        target.run(token, 1, connections, quiet=True)
    for number in range(rounds):
        if progress:
            progress(f"round {number + 1} of {rounds}")
        for target in targets:
            target.run(token, seconds, connections)
    return summary(targets, seconds, connections)


def summary(targets, seconds, connections=8):
    """The results, by name of target, of the rounds that were run."""
    first, results = targets[0], {}
    for target in targets:
        result = {"rounds": target.rounds}
        for what in ["cpu_ns_per_request", "requests_per_second"]:
            result[what] = spread(target.values(what))
            result[f"{what}_ratio"] = spread([a / b for a, b in zip(target.values(what), first.values(what))])
        results[target.name] = result
    return {"compared_with": first.name, "seconds": seconds, "connections": connections, "targets": results}


def describe(results):
    for name, result in results["targets"].items():
        cpu, ratio = result["cpu_ns_per_request"], result["cpu_ns_per_request_ratio"]
        rate, rates = result["requests_per_second"], result["requests_per_second_ratio"]
        yield (
            f"{name}: {cpu['median'] / 1000:.2f} us of CPU a request, {ratio['median']:.3f} x "
            f"({ratio['quartiles'][0]:.3f} to {ratio['quartiles'][1]:.3f}); {rate['median']:.0f} requests/s "
            f"({rate['min']:.0f} to {rate['max']:.0f}), {rates['median']:.3f} x"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--token", required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--json", help="where the results go; standard output otherwise")
    parser.add_argument("targets", nargs="+", type=Target, metavar="NAME=PID=URL[=open]")
    options = parser.parse_args()

    def say(text):
        print(text, file=sys.stderr)

    results = measure(options.targets, options.token, options.rounds, options.seconds, options.connections, say)
    for line in describe(results):
        say(line)
    text = json.dumps(results, indent=1)
    if options.json:
        Path(options.json).write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
