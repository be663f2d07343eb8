"""How many new tokens a second, and how long does each take, with an authorization server that takes 0, 20 and 100 ms?"""

import contextlib
import statistics

import harness
import hosts

# Where files are quicker to write than shared memory.
CACHE = {"apache-oauth2": "file"}
# Milliseconds that the server takes, and the connections that ask.
DELAYS = {0: 64, 20: 256, 100: 256}
COMPARED_WITH = "nginx-tokenward"


def ask(options, servers, say):
    # What the others are compared with is measured with them, asked for or not.
    names = [COMPARED_WITH, *(name for name in hosts.protected(options) if name != COMPARED_WITH)]
    rows = []
    with contextlib.ExitStack() as running:
        running_hosts = [running.enter_context(hosts.start(name, servers, capacity=100_000, cache=CACHE.get(name, "shm"))) for name in names]
        for host in running_hosts:
            host.check(["memory"])
        for delay, connections in DELAYS.items():
            servers.control(delay=delay)
            rounds = {name: [] for name in names}
            for number in range(-1, options.rounds):
                for host in running_hosts:
                    ran = hosts.load(host, "memory", connections, options.seconds, first=servers.fresh, count=0)
                    servers.new_tokens(ran["requests"] + 2 * connections + 1000)
                    ran["per_second"] = ran["requests"] / ran["seconds"]
                    ran["cpu_us"] = ran["cpu_ns"] / 1000 / max(ran["requests"], 1)
                    # One that failed may have failed before it was asked about.
                    if ran["active"] < ran["requests"] - ran["refused"] - ran["broken"]:
                        raise hosts.Failure(f"{host.name}: {ran['requests']} new tokens, and {ran['active']} calls")
                    if number >= 0:
                        rounds[host.name].append(ran)
            first = rounds[COMPARED_WITH]
            peers = [name for name in names if name not in hosts.OURS]
            best = max(peers, key=lambda name: statistics.median(one["per_second"] for one in rounds[name]), default=None)
            for name in names:
                ran = rounds[name]
                row = {"peer": name, "delay_ms": delay, "connections": connections,
                       "failed": sum(one["refused"] + one["broken"] for one in ran), "requests": sum(one["requests"] for one in ran)}
                for what in ["per_second", "p50_us", "p99_us", "cpu_us", "busy"]:
                    row[what] = harness.spread([one[what] for one in ran])
                row["per_second_ratio"] = harness.spread([one["per_second"] / of["per_second"] for one, of in zip(ran, first)])
                if best:
                    row["best_peer"] = best
                    row["by_best_peer"] = harness.spread([one["per_second"] / of["per_second"] for one, of in zip(ran, rounds[best])])
                rows.append(row)
                say(f"misses, {delay} ms, {name}: {row['per_second']['median']:.0f}/s, p50 {row['p50_us']['median'] / 1000:.1f} ms, "
                    f"p99 {row['p99_us']['median'] / 1000:.1f} ms, {row['cpu_us']['median']:.1f} us of CPU, {row['failed']} failed")
    servers.control(delay=0)
    return {"rounds": options.rounds, "seconds": options.seconds, "compared_with": COMPARED_WITH, "rows": rows}
