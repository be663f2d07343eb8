"""1000 clients come at once with one new token: how many calls is that for the authorization server, which takes 100 ms?"""

import json

import harness
import hosts

CLIENTS = 1000
DELAY = 100


def ask(options, servers, say):
    rows = []
    servers.control(delay=DELAY)
    for name in hosts.protected(options):
        with hosts.start(name, servers) as host:
            host.check(["memory"])
            calls, last, middle, statuses = [], [], [], {}
            for _ in range(options.crowds):
                before = servers.control()["asked"]
                token = hosts.token_of(servers.new_tokens(1), 43)
                text = hosts.as_others(hosts.SERVER, "burst", "--to", f"127.0.0.1:{host.port}", "--path", "/memory/orders/7", "--token", token,
                                       "--clients", CLIENTS, "--patience", 30)
                crowd = json.loads(text)
                calls.append(servers.control()["asked"] - before)
                last.append(crowd["ms"][-1])
                middle.append(crowd["ms"][len(crowd["ms"]) // 2])
                for status, count in crowd["statuses"].items():
                    statuses[status] = statuses.get(status, 0) + count
            rows.append({"peer": name, "calls": harness.spread(calls), "last_ms": harness.spread(last), "median_ms": harness.spread(middle),
                         "statuses": statuses})
            say(f"herd, {name}: {calls} calls, the last after {last} ms, {statuses}")
    servers.control(delay=0)
    return {"clients": CLIENTS, "delay_ms": DELAY, "crowds": options.crowds, "rows": rows}
