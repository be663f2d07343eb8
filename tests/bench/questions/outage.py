"""The authorization server hangs while half of the tokens are remembered. What do hits and misses see?"""

import json
import statistics
import subprocess
import threading

import hosts

KNOWN = 1000
CONNECTIONS = 8
# New tokens a second, all the time.
RATE = 200
DELAY = 20


def ask(options, servers, say):
    rows = []
    for name in options.peers:
        if name in hosts.OPEN:
            continue
        with hosts.start(name, servers, timeout=options.timeout) as host:
            host.check(["memory"])
            hosts.teach(host, KNOWN, 43)
            servers.control(delay=DELAY)
            rows.append(outage(options, servers, host))
            servers.control(hang=False, delay=0)
        row = rows[-1]
        say(f"outage, {name}: p99 of hits {row['hits_before']['p99_us'] / 1000:.2f} ms before, {row['hits_during']['p99_us'] / 1000:.2f} during, "
            f"{row['hits_after']['p99_us'] / 1000:.2f} after; misses {row['misses_before']}, {row['misses_during']}, {row['misses_after']}")
    return {"known": KNOWN, "rate": RATE, "delay_ms": DELAY, "connections": CONNECTIONS, "hang_seconds": options.hang,
            "timeout_seconds": options.timeout, "rows": rows}


def outage(options, servers, host):
    before, hang, after = options.calm, options.hang, options.calm
    patience = options.timeout * 2 + 5
    misses = subprocess.Popen(
        [str(part) for part in [
            hosts.SERVER, "trickle", "--to", f"127.0.0.1:{host.port}", "--path", "/memory/orders/7", "--length", 43,
            "--from", servers.new_tokens(RATE * 1000), "--rate", RATE, "--seconds", before + hang + after, "--patience", patience]],
        preexec_fn=hosts.on_processors(hosts.OTHERS_PROCESSORS), stdout=subprocess.PIPE, text=True)
    answers = []
    reader = threading.Thread(target=lambda: answers.append(misses.stdout.read()))
    reader.start()
    windows, spent = {"before": [], "during": [], "after": []}, 0.0
    edges = {}
    for phase, length in [("before", before), ("during", hang), ("after", after)]:
        if phase != "before":
            servers.control(hang=phase == "during")
        edges[phase] = spent
        until = spent + length
        while spent < until - 0.5:
            ran = hosts.load(host, "memory", CONNECTIONS, 1, count=KNOWN)
            windows[phase].append({name: ran[name] for name in ["p50_us", "p99_us", "requests", "refused", "broken"]})
            spent += 1.0
    reader.join()
    misses.wait()
    row = {"peer": host.name}
    for phase, of in windows.items():
        row[f"hits_{phase}"] = {
            "p50_us": statistics.median(one["p50_us"] for one in of), "p99_us": statistics.median(one["p99_us"] for one in of),
            "worst_p99_us": max(one["p99_us"] for one in of), "requests": sum(one["requests"] for one in of),
            "failed": sum(one["refused"] + one["broken"] for one in of)}
    row["windows"] = [[phase, one["p50_us"], one["p99_us"]] for phase, of in windows.items() for one in of]
    asked = json.loads(answers[0])
    # wrk needs a moment to start, so that the phases last longer than their windows: these are told apart by what was answered.
    first_failure = min((at for at, status, _ in asked if status != 200), default=None)
    last_failure = max((at for at, status, _ in asked if status != 200), default=None)
    phases = {"before": [], "during": [], "after": []}
    for at, status, ms in asked:
        phase = "before" if first_failure is None or at < first_failure else "during" if at <= last_failure else "after"
        phases[phase].append((status, ms))
    for phase, of in phases.items():
        row[f"misses_{phase}"] = summary(of)
    return row


def summary(misses):
    statuses = {}
    for status, _ in misses:
        name = {0: "hung", 1: "cut off"}.get(status, str(status))
        statuses[name] = statuses.get(name, 0) + 1
    times = sorted(ms for _, ms in misses)
    if not times:
        return {"statuses": {}, "p50_ms": None, "max_ms": None}
    return {"statuses": dict(sorted(statuses.items())), "p50_ms": times[len(times) // 2], "max_ms": times[-1]}
