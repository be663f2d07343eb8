"""What does a request cost whose token is remembered? CPU time first: it hardly depends on who else is busy."""

import contextlib

import harness
import hosts

# Head of the tokens, their length, how many. A person's is answered with ten members (RFC 7662 section 2.2), an application's with five.
SHORT, LONG, OF_APPLICATION = ("person.", 43, 10), ("person.", 1000, 10), ("application.", 43, 10)
MANY_SHORT, MANY_LONG = ("person.", 43, 100_000), ("person.", 1000, 100_000)
# By family, and what its hosts are started with. Apache's modules take minutes to learn many tokens, so that there is one set of those.
SETS = {
    "nginx": [({}, [SHORT, LONG, OF_APPLICATION, MANY_SHORT, MANY_LONG])],
    "apache": [({}, [SHORT]), ({"long_tokens": True}, [LONG]), ({"cache": "file"}, [MANY_SHORT])],
}
QUICK_SETS = {"nginx": [({}, [SHORT, MANY_LONG])], "apache": [({}, [SHORT])]}
MANY_QUICKLY = 2_000
CONNECTIONS = 8


def ask(options, servers, say):
    rows, checks, taught = [], {}, {}
    for family, names in hosts.families(options.peers).items():
        # What the others are compared with is measured with them, asked for or not.
        names = [family, *(name for name in names if name != family)]
        for settings, sets in (QUICK_SETS if options.quick else SETS)[family]:
            sets = [one for one in sets if ("few" if one[2] <= 10 else "many") in options.sets]
            if not sets:
                continue
            with contextlib.ExitStack() as running:
                running_hosts = [running.enter_context(hosts.start(name, servers, **settings)) for name in names]
                for host in running_hosts:
                    checks[host.name] = host.check()
                for one in sets:
                    rows += measured(options, running_hosts, one, say, taught)
    return {"connections": CONNECTIONS, "rounds": options.rounds, "seconds": options.seconds, "checks": checks, "taught": taught,
            "rows": rows}


def measured(options, running, tokens, say, taught):
    head, length, count = tokens
    if options.quick:
        count = min(count, MANY_QUICKLY)
    rows, known = [], {}
    for host in running:
        known[host.name] = count
        if not host.is_open:
            learnt = hosts.teach(host, count, length, head, most_seconds=options.teach_seconds)
            known[host.name] = learnt["known"]
            if count > 10:
                taught.setdefault(host.name, []).append({"length": length, **learnt})
                say(f"{host.name} has learnt {learnt['known']} tokens of {length} bytes in {learnt['seconds']:.0f} s")
    for kind in options.kinds:
        rounds = {host.name: [] for host in running}
        for number in range(options.rounds):
            for host in running:
                # Begun elsewhere in each round, so that all of them come up with slow hosts as well.
                offset = number * known[host.name] // options.rounds
                ran = hosts.load(host, kind, CONNECTIONS, options.seconds, head, length, 0, known[host.name], offset)
                # A token that a peer failed to learn may fail again. The report says so of a single one.
                if ran["refused"] + ran["broken"] > ran["requests"] / 100:
                    raise hosts.Failure(f"{host.name}: not every request was answered with 200: {ran}")
                if kind == "proxied" and ran["upstream"] < ran["requests"] - ran["refused"]:
                    raise hosts.Failure(f"{host.name}: not every request reached the upstream: {ran}")
                ran["cpu_us"] = ran["cpu_ns"] / 1000 / ran["requests"]
                ran["per_second"] = ran["requests"] / ran["seconds"]
                rounds[host.name].append(ran)
        first = rounds[running[0].name]
        for host in running:
            ran = rounds[host.name]
            row = {"peer": host.name, "kind": kind, "token": head.rstrip("."), "length": length, "tokens": known[host.name],
                   "wanted": count, "misses": sum(one["active"] for one in ran), "requests": sum(one["requests"] for one in ran),
                   "failed": sum(one["refused"] + one["broken"] for one in ran)}
            for what in ["cpu_us", "per_second", "p50_us", "p99_us", "busy"]:
                row[what] = harness.spread([one[what] for one in ran])
            for what in ["cpu_us", "per_second"]:
                row[f"{what}_ratio"] = harness.spread([one[what] / bare[what] for one, bare in zip(ran, first)])
            rows.append(row)
            say(f"{kind}, {count} x {length} B {head} {host.name}: {row['cpu_us']['median']:.2f} us of CPU, "
                f"{row['cpu_us_ratio']['median']:.3f} x; {row['per_second']['median']:.0f}/s, p99 {row['p99_us']['median']:.0f} us, "
                f"busy {row['busy']['median']:.2f}, {row['misses']} misses")
    return rows
