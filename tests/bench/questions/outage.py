"""The authorization server hangs while half of the tokens are remembered. What do hits and misses see?"""

import json
import statistics
import subprocess
import threading
import time

import hosts

KNOWN = 1000
CONNECTIONS = 8
# New tokens a second, all the time.
RATE = 200
DELAY = 20


def ask(options, servers, say):
    rows = []
    for name in hosts.protected(options):
        with hosts.start(name, servers, timeout=options.timeout, cache="file") as host:
            host.check(["memory"])
            hosts.teach(host, KNOWN, 43)
            servers.control(delay=DELAY)
            rows.append(outage(options, servers, host))
            servers.control(hang=False, delay=0)
        for phase in ["before", "during", "after"]:
            say(f"outage, {name}, {phase}: hits {rows[-1][f'hits_{phase}']}, misses {rows[-1][f'misses_{phase}']}")
    return {"known": KNOWN, "rate": RATE, "delay_ms": DELAY, "connections": CONNECTIONS, "hang_seconds": options.hang,
            "timeout_seconds": options.timeout, "rows": rows}


def outage(options, servers, host):
    before, hang, after = options.calm, options.hang, options.calm
    patience = options.timeout * 2 + 5
    trickle = [hosts.SERVER, "trickle", "--to", f"127.0.0.1:{host.port}", "--path", "/memory/orders/7", "--length", 43,
               "--from", servers.new_tokens(RATE * 1000), "--rate", RATE, "--seconds", before + hang + after, "--patience", patience]
    answers = []
    windows = {"before": [], "during": [], "after": []}
    edges = {}
    with hosts.Process(trickle, hosts.OTHERS_PROCESSORS, stdout=subprocess.PIPE, text=True) as misses:
        reader = threading.Thread(target=lambda: answers.append(misses.process.stdout.read()))
        reader.start()
        for phase, length in [("before", before), ("during", hang), ("after", after)]:
            if phase != "before":
                servers.control(hang=phase == "during")
            edges[phase] = time.time()
            while time.time() < edges[phase] + length - 0.5:
                ran = hosts.load(host, "memory", CONNECTIONS, 1, count=KNOWN, alone=False)
                windows[phase].append({name: ran[name] for name in ["p50_us", "p99_us", "requests", "refused", "broken"]})
        reader.join()
    row = {"peer": host.name}
    for phase, of in windows.items():
        answered = [one for one in of if one["requests"] > 0]
        row[f"hits_{phase}"] = {
            "windows": len(of), "silent_windows": len(of) - len(answered), "requests": sum(one["requests"] for one in of),
            "failed": sum(one["refused"] + one["broken"] for one in of),
            # In a window without an answer nothing has a time.
            **({what: statistics.median(one[what] for one in answered) for what in ["p50_us", "p99_us"]} if answered else {}),
            **({"worst_p99_us": max(one["p99_us"] for one in answered)} if answered else {})}
    row["windows"] = [[phase, one["p50_us"], one["p99_us"]] if one["requests"] else [phase, None, None]
                      for phase, of in windows.items() for one in of]
    asked = json.loads(answers[0])
    phases = {"before": [], "during": [], "after": []}
    for at, status, ms in asked["requests"]:
        came = asked["began"] + at / 1000
        # What was asked just before and had to wait belongs to the outage.
        phase = "after" if came >= edges["after"] else "during" if came + ms / 1000 > edges["during"] else "before"
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
