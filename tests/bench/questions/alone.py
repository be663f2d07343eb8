"""Are the servers of our own fast enough? Each alone, with nothing between it and wrk."""

import json

import harness
import hosts


def ask(options, servers, say):
    rows = {}
    urls = {
        "upstream": f"http://127.0.0.1:{servers.ports['upstream']}/orders/7",
        "authorization server": f"http://127.0.0.1:{servers.ports['authorization_server']}/introspect",
    }
    rounds = {name: [] for name in urls}
    for _ in range(options.rounds):
        for name, url in urls.items():
            before = harness.on_cpu(servers.pid)
            text = hosts.as_others("wrk", "-t1", "-c64", f"-d{options.seconds}s", "-s", hosts.HERE / "alone.lua", url, "--", name)
            ran = json.loads(text.strip().splitlines()[-1])
            if ran["refused"] or ran["broken"]:
                raise hosts.Failure(f"{name}: {ran}")
            ran["cpu_us"] = (harness.on_cpu(servers.pid) - before) / 1000 / ran["requests"]
            ran["per_second"] = ran["requests"] / ran["seconds"]
            rounds[name].append(ran)
    for name, ran in rounds.items():
        rows[name] = {what: harness.spread([one[what] for one in ran]) for what in ["cpu_us", "per_second", "p50_us", "p99_us"]}
        say(f"{name} alone: {rows[name]['per_second']['median']:.0f}/s, {rows[name]['cpu_us']['median']:.1f} us of CPU each")
    return {"connections": 64, "rows": rows}
