#!/usr/bin/env python3
"""Makes RESULTS.md of results.json, with the standard library alone.

    tests/bench/report.py [--check] [FOLDER]

With --check nothing is written: the exit status says whether RESULTS.md and the charts are those of the results.json beside them. A chart says
in itself of what it was drawn (charts.py), so that nothing has to be drawn for it.
"""

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TITLES = {
    "nginx": "nginx, unprotected",
    "nginx-tokenward": "nginx, Tokenward module",
    "nginx-lua": "nginx, Tokenward Lua library",
    "nginx-njs": "nginx, auth_request and njs",
    "apache": "Apache, unprotected",
    "apache-oauth2": "Apache, mod_oauth2",
    "apache-openidc": "Apache, mod_auth_openidc",
}
OURS = ("nginx-tokenward", "nginx-lua")
# Charts, and the question of each.
CHARTS = {"hits": "hits", "misses": "misses", "herd": "herd", "outage": "outage", "growth": "growth", "flood": "flood", "languages": "languages"}


def title(name):
    return TITLES.get(name, name)


def number(value, digits=3):
    """A count as it is, and anything else with so many digits; both thin enough to be read."""
    if value is None:
        return "none"
    if isinstance(value, int) or abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}".replace(",", " ")
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:.{digits - whole}f}"


def ratio(spread):
    low, high = spread["quartiles"]
    return f"{spread['median']:.3f} ({low:.3f} to {high:.3f})"


def with_quartiles(spread, scale=1.0, digits=3):
    low, high = spread["quartiles"]
    return f"{number(spread['median'] / scale, digits)} ({number(low / scale, digits)} to {number(high / scale, digits)})"


def table(head, rows):
    yield "| " + " | ".join(head) + " |"
    yield "|---" + "|---:" * (len(head) - 1) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def command(question, asked):
    yield f"`tests/bench/run --only {question}`" + measured(asked.get("measured", []))
    yield ""


def measured(times):
    """When; more than one time means that what stands side by side is not of the same minutes."""
    if len(times) > 1:
        return f", **measured piece by piece**: {', '.join(times)}"
    return f", measured {times[0]}" if times else ""


def chart(name, folder, alternative):
    if (folder / "charts" / f"{name}.svg").exists():
        yield f"![{alternative}](charts/{name}.svg)"
        yield ""


def mark(met):
    return "met" if met else "**missed**"


def goals(questions):
    """Each goal, the figure, and whether it is met."""
    if "hits" in questions:
        rows = questions["hits"]["rows"]
        for peer, kind, most, name in [
                ("nginx-tokenward", "proxied", 1.03, "module, proxied"), ("nginx-tokenward", "memory", 1.07, "module, in memory"),
                ("nginx-lua", "memory", 1.20, "Lua library, in memory")]:
            for row in rows:
                if row["peer"] == peer and row["kind"] == kind:
                    found = row["cpu_us_ratio"]
                    yield [f"CPU time of a hit by unprotected: {name}, {tokens_of(row)}", f"at most {most:.2f}", ratio(found),
                           mark(found["median"] <= most)]
        yield from ahead(rows)
    if "misses" in questions:
        rows = [row for row in questions["misses"]["rows"] if row["delay_ms"] == 0]
        best = max((row["per_second"]["median"] for row in rows if row["peer"] not in OURS), default=None)
        for row in rows:
            if best and row["peer"] in OURS:
                # Pairs of what was measured in another run than the best peer there are none of.
                times = row.get("by_best_peer", {}).get("median", row["per_second"]["median"] / best)
                yield [f"misses a second, server of 0 ms, by the best peer: {title(row['peer'])}", "at least 2",
                       ratio(row["by_best_peer"]) if "by_best_peer" in row else f"{times:.2f}", mark(times >= 2)]
    if "herd" in questions:
        for row in questions["herd"]["rows"]:
            if row["peer"] in OURS:
                yield [f"calls for {questions['herd']['clients']} clients with one new token, all let in: {title(row['peer'])}", "1",
                       f"{row['calls']['max']:.0f}", mark(row["calls"]["max"] == 1 and list(row["statuses"]) == ["200"])]
    if "outage" in questions:
        limit = questions["outage"]["timeout_seconds"] * 1000
        for row in questions["outage"]["rows"]:
            if row["peer"] in OURS:
                before, during = row["hits_before"]["p99_us"], row["hits_during"].get("p99_us", float("inf"))
                most = max(before * 1.5, before + 5000)
                lost = row["hits_during"]["failed"] + row["hits_during"]["silent_windows"]
                yield [f"outage, hits' p99 (median over windows): {title(row['peer'])}", f"at most {number(most / 1000)} ms, none failed",
                       f"{number(during / 1000)} ms, {lost} failed", mark(during <= most and lost == 0)]
                slowest, counts = row["misses_during"]["max_ms"] or 0, row["misses_during"]["statuses"]
                hung = counts.get("hung", 0) + counts.get("cut off", 0)
                yield [f"outage, misses answered within the time limit: {title(row['peer'])}", f"{limit + 100} ms (the limit and 100), none hung",
                       f"{number(slowest, 4)} ms at most, {hung} hung or cut off", mark(0 < slowest <= limit + 100 and hung == 0)]
    yield from of_languages(questions.get("languages"))
    yield from enough(questions)


def of_languages(asked):
    """The packages beside the application without any of them, and beside what their users would take instead."""
    if not asked:
        return
    for name, most, what in [("python", 1.10, "Python package"), ("node", 1.12, "Node.js package")]:
        targets = asked[name]["targets"]
        ours = targets["tokenward"]["cpu_ns_per_request_ratio"]
        yield [f"CPU time of a hit by the application bare: {what}", f"at most {most:.2f}", ratio(ours), mark(ours["median"] <= most)]
        for peer in targets:
            # A plugin that does nothing is what any costs, not a peer.
            if peer not in ("bare", "nothing", "tokenward"):
                other = targets[peer]["cpu_ns_per_request_ratio"]["median"]
                yield [f"CPU time of a hit by the application bare: {what} ahead of {peer}", f"less than {other:.2f}", f"{ours['median']:.2f}",
                       mark(ours["median"] < other)]
    spent = asked["python"].get("lookup_ns", {})
    if spent:
        times = spent["lookup"] / spent["building the request"]
        yield ["`lookup` called from Python, by building the request", "at most 3", f"{times:.2f}", mark(times <= 3)]
    for what, spent in asked["node"].get("lookup_ns", {}).items():
        yield [f"`lookup` called from JavaScript: {what}", "at most 3 µs", f"{spent / 1000:.2f} µs", mark(spent <= 3000)]


def enough(questions):
    """The servers of our own alone, on a processor that they share with wrk, beside the most that any host asked of them."""
    for server, question, what in [("upstream", "hits", "proxied hits"), ("authorization server", "misses", "misses")]:
        if "alone" in questions and question in questions:
            alone = questions["alone"]["rows"][server]["per_second"]["median"]
            rows = [row for row in questions[question]["rows"] if row.get("kind", "proxied") == "proxied"]
            most = max(row["per_second"]["median"] for row in rows)
            yield [f"requests a second of our own {server}, alone, by the most {what} a second", "more than 1", f"{alone / most:.2f}", mark(alone > most)]


def ahead(rows):
    """Tokenward's module beside each peer that is not ours, by what both add to their own host unprotected."""
    def asked(row):
        return [row[name] for name in ["kind", "token", "length", "wanted"]]

    ours = [row for row in rows if row["peer"] == "nginx-tokenward"]
    for peer in ["nginx-njs", "apache-oauth2", "apache-openidc"]:
        pairs = [(mine["cpu_us_ratio"]["median"], row["cpu_us_ratio"]["median"]) for row in rows if row["peer"] == peer
                 for mine in ours if asked(mine) == asked(row)]
        if pairs:
            mine, other = min(pairs, key=lambda pair: pair[1] / pair[0])
            yield [f"CPU time of a hit by unprotected: module ahead of {title(peer)}, where they are closest", f"less than {other:.2f}", f"{mine:.2f}",
                   mark(mine < other)]


def tokens_of(row):
    what = "" if row["token"] == "person" else ", an application's"
    known = "" if row["tokens"] == row["wanted"] else f" (of {number(row['wanted'])} wanted)"
    return f"{number(row['tokens'])} x {row['length']} B{what}{known}"


def alone(asked):
    rows = [[name, with_quartiles(row["per_second"]), with_quartiles(row["cpu_us"]), number(row["p50_us"]["median"]), number(row["p99_us"]["median"])]
            for name, row in asked["rows"].items()]
    yield f"With {asked['connections']} connections, both in one thread of one process:"
    yield ""
    yield from table(["", "requests/s", "CPU µs each", "p50 µs", "p99 µs"], rows)


def hits(asked):
    yield (f"{asked['connections']} connections, {asked['rounds']} rounds of {asked['seconds']} s, in turn. *busy* is how much of its processor the host used: where it is 1.00, "
           "the host is what was measured. Ratios are to the unprotected host of the same family, round by round: median (quartiles).")
    yield ""
    groups = {}
    for row in asked["rows"]:
        groups.setdefault((row["kind"], tokens_of({**row, "tokens": row["wanted"]})), []).append(row)
    for (kind, tokens), rows in groups.items():
        yield f"**{'Answered from memory' if kind == 'memory' else 'Proxied'}, {tokens}**"
        yield ""
        yield from table(
            ["", "CPU µs a request", "ratio", "requests/s", "ratio", "p50 µs", "p99 µs", "busy"],
            [[title(row["peer"]) + ("" if row["tokens"] == row["wanted"] else f", {number(row['tokens'])} tokens") +
              (f", **{100 * row['misses'] / row['requests']:.0f} % not remembered**" if row["misses"] > row["requests"] / 100 else "") +
              (f", **{number(row['failed'])} failed**" if row.get("failed") else ""),
              with_quartiles(row["cpu_us"]), ratio(row["cpu_us_ratio"]), number(row["per_second"]["median"]), f"{row['per_second_ratio']['median']:.3f}",
              number(row["p50_us"]["median"]), number(row["p99_us"]["median"]), f"{row['busy']['median']:.2f}"] for row in rows])
    most = max(asked["rows"], key=lambda row: row["misses"] / row["requests"])
    yield (f"Hits were hits: the authorization server was asked in at most {most['misses'] / most['requests']:.2%} of the requests of any line" +
           (f", {title(most['peer'])}'s, {most['kind']}, {tokens_of(most)}." if most["misses"] else "."))
    yield ""
    yield ("What each location answered before it was measured" +
           (", its body compared as well. The proxied one's is the upstream's, which was told whose the token is, and was not reached where the answer is 401:"
            if asked.get("measured") else ":"))
    yield ""
    names = sorted({name for shown in asked["checks"].values() for name in shown})
    yield from table(["", *names], [[title(peer), *(str(shown.get(name, "")) for name in names)] for peer, shown in asked["checks"].items()])


def misses(asked):
    yield f"{asked['rounds']} rounds of {asked['seconds']} s, in turn; every request has a token of its own. Answered from memory. Ratios are to the first line."
    yield ""
    groups = {}
    for row in asked["rows"]:
        groups.setdefault((row["delay_ms"], row["connections"]), []).append(row)
    for (delay, connections), rows in groups.items():
        yield f"**The authorization server takes {delay} ms; {connections} connections**"
        yield ""
        yield from table(["", "misses/s", "ratio", "p50 ms", "p99 ms", "CPU µs each", "busy", "failed"], [
            [title(row["peer"]), with_quartiles(row["per_second"]), ratio(row["per_second_ratio"]), number(row["p50_us"]["median"] / 1000),
             number(row["p99_us"]["median"] / 1000), number(row["cpu_us"]["median"]), f"{row['busy']['median']:.2f}",
             f"{row['failed']} of {row['requests']}"] for row in rows])


def herd(asked):
    yield f"{asked['crowds']} crowds; the authorization server takes {asked['delay_ms']} ms."
    yield ""
    yield from table(["", "calls, median", "calls, most", "last client answered after, ms", "answers"], [
        [title(row["peer"]), number(row["calls"]["median"]), number(row["calls"]["max"]), with_quartiles(row["last_ms"]),
         statuses(row["statuses"])] for row in asked["rows"]])


def statuses(counts):
    names = {"0": "hung", "1": "cut off"}
    return ", ".join(f"{number(count)} x {names.get(status, status)}" for status, count in counts.items())


def outage(asked):
    yield (f"{asked['connections']} connections ask with {asked['known']} remembered tokens, as fast as they are answered, in windows of a second; and {asked['rate']} times a second "
           f"comes a new token. The authorization server takes {asked['delay_ms']} ms, then hangs for {asked['hang_seconds']} s, then is well again. Time limit of a call: "
           f"{asked['timeout_seconds']} s (mod_oauth2 of this version has 15 s, whatever is configured). p99 is the median over windows. Misses that came shortly before the end of the "
           f"outage were answered by the server. *hung*: no answer within {asked['timeout_seconds'] * 2 + 5} s.")
    yield ""
    rows = []
    for row in asked["rows"]:
        for phase in ["before", "during", "after"]:
            of_hits, of_misses = row[f"hits_{phase}"], row[f"misses_{phase}"]
            time = number(of_hits["p99_us"] / 1000) if "p99_us" in of_hits else "none answered"
            if of_hits["silent_windows"]:
                time += f", **{of_hits['silent_windows']} of {of_hits['windows']} windows without an answer**"
            rows.append([f"{title(row['peer'])}: {phase}", time, number(of_hits["requests"] / max(of_hits["windows"], 1)),
                         str(of_hits["failed"]), statuses(of_misses["statuses"]), number(of_misses["p50_ms"], 4), number(of_misses["max_ms"], 4)])
    yield from table(["", "hits: p99 ms", "a second", "failed", "misses: answers", "p50 ms", "slowest ms"], rows)


def growth(asked):
    yield (f"The core alone, {number(asked['operations'])} hits in random order, {asked['rounds']} rounds; one in 32 hits is timed by itself, which adds what reading the clock "
           "takes. On two threads, both use one introspector.")
    yield ""
    yield from table(["tokens", "one thread: p50 ns", "p99 ns", "two threads: p50 ns", "p99 ns", "bytes a token"], [
        [number(row["tokens"]), with_quartiles(row["one_p50_ns"], digits=4), number(row["one_p99_ns"]["median"], 4),
         with_quartiles(row["two_p50_ns"], digits=4), number(row["two_p99_ns"]["median"], 4), number(row["bytes_per_token"]["median"], 4)]
        for row in asked["core"]])
    yield f"Hosts, {asked['connections']} connections, tokens in turn, answered from memory. Bytes are what the process has grown by; njs keeps answers in files beside."
    yield ""
    yield from table(["", "tokens", "CPU µs a request", "p50 µs", "p99 µs", "MiB", "bytes a token", "in files, bytes a token"], [
        [title(row["peer"]) + (", **not all remembered**" if row["misses"] > row.get("requests", row["tokens"]) / 100 else ""), number(row["tokens"]),
         with_quartiles(row["cpu_us"]), number(row["p50_us"]["median"]), number(row["p99_us"]["median"]), number(row["memory_bytes"] / 2**20), number(row["bytes_per_token"], 4), number(row["files_bytes"] / row["tokens"], 4)]
        for row in asked["hosts"]])


def flood(asked):
    yield (f"{asked['hot_connections']} connections ask with {asked['hot']} remembered tokens while {asked['junk_connections']} send tokens that are rejected, each a new one, as fast as they are "
           f"answered, for {asked['seconds']} s. Hosts may remember {number(asked['capacity'])} answers (Apache's modules: 1000). The hit ratio is 1 less the calls about good tokens by their requests.")
    yield ""
    yield from table(["", "rejected/s", "let in", "hit ratio", "good refused", "hits: p99 ms before", "during", "MiB before", "most", "MiB of files"], [
        [title(row["peer"]), number(row["junk_per_second"]), str(row["junk_let_in"]), f"{row['hit_ratio']:.4f}", str(row["hot_refused"]),
         number(row["calm_p99_us"] / 1000), number(row["hot_p99_us"] / 1000), number(row["memory_bytes"][0] / 2**20), number(max(row["memory_bytes"]) / 2**20),
         number(row["files_bytes"] / 2**20)] for row in asked["rows"]])


def instructions(asked):
    bare = {row["kind"]: row["instructions"] for row in asked["rows"] if row["peer"] == "nginx"}
    yield "In one process, by callgrind (whose processor has no instructions for SHA-256: a hash costs more than on most machines)."
    yield ""
    yield from table(["", "", "instructions", "more than unprotected"], [
        [title(row["peer"]), "from memory" if row["kind"] == "memory" else "proxied", number(round(row["instructions"])),
         number(round(row["instructions"] - bare[row["kind"]])) if row["kind"] in bare else ""] for row in asked["rows"]])


def languages(asked):
    yield "These hosts and wrk share the processors. Each answers 401 without a token and 200 with one before it is measured."
    yield ""
    for name, what in [("python", "An ASGI application on uvicorn"), ("node", "A Fastify application")]:
        yield f"**{what}** (`tests/bench/{name}/run`)"
        yield ""
        yield from table(["", "CPU µs a request", "ratio", "requests/s", "ratio"], [
            [peer, with_quartiles(row["cpu_ns_per_request"], 1000), ratio(row["cpu_ns_per_request_ratio"]), number(row["requests_per_second"]["median"]),
             f"{row['requests_per_second_ratio']['median']:.3f}"] for peer, row in asked[name]["targets"].items()])
        if asked[name].get("lookup_ns"):
            yield "A hit called by itself, and its parts:"
            yield ""
            yield from table(["", "ns"], [[what, number(spent)] for what, spent in asked[name]["lookup_ns"].items()])


SECTIONS = {
    "hits": ("Hits: what a request with a remembered token costs", hits, "CPU time of a hit, by host"),
    "misses": ("Misses: new tokens a second", misses, "misses a second, by host and delay of the authorization server"),
    "herd": ("Herd: 1000 clients with one new token", herd, "calls for 1000 clients with one new token"),
    "outage": ("Outage: the authorization server hangs", outage, "hits and misses while the authorization server hangs"),
    "growth": ("Growth: 1000 to 1 000 000 tokens", growth, "latency and memory by tokens remembered"),
    "flood": ("Flood: junk at full speed", flood, "hits and memory while rejected tokens arrive"),
    "languages": ("Python and Node.js", languages, "CPU time of a hit in Python and Node.js"),
    "instructions": ("Instructions of a hit", instructions, None),
    "alone": ("The servers of our own, alone", alone, None),
}


def text(results, folder):
    questions, machine, versions = results["questions"], results["machine"], results["versions"]
    yield "# Results"
    yield ""
    yield (f"Made by `tests/bench/report.py` from `results.json`, which `tests/run bench` writes. {machine['processor']}, {machine['processors']} processors, {machine['memory_gib']} GiB, "
           f"{machine['system']}, Linux {machine['kernel']}.")
    yield ""
    yield ("One worker of nginx, or one process of Apache with many threads, has a processor to itself; wrk, authorization server and upstream share the others. Rounds alternate between "
           "hosts. CPU time is that of all of the host's processes, from `/proc`. The configurations are in `peers/`. lua-resty-openidc is not among the peers: no archive used here has it.")
    yield ""
    if any(asked["quick"] for asked in questions.values()):
        yield "**Some of this was measured with `--quick`, which is coarse.**"
        yield ""
    minutes = sum(asked["took_seconds"] for asked in questions.values()) / 60
    yield f"The questions below took {minutes:.0f} minutes in all."
    yield ""
    yield "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."
    yield ""
    yield "## Goals"
    yield ""
    yield from table(["", "goal", "measured", ""], goals(questions))
    for name, (heading, section, alternative) in SECTIONS.items():
        if name in questions:
            yield f"## {heading}"
            yield ""
            yield from command(name, questions[name])
            if alternative:
                yield from chart(name, folder, alternative)
            yield from section(questions[name])


def drawn_of(results, question):
    """What a chart bears: the hash of what it was drawn of, and of what drew it."""
    data = json.dumps(results["questions"][question], sort_keys=True) + (HERE / "charts.py").read_text()
    return hashlib.sha256(data.encode()).hexdigest()


def write(folder):
    results = json.loads((folder / "results.json").read_text())
    (folder / "RESULTS.md").write_text("\n".join(text(results, folder)))


def check(folder):
    """What does not agree, in words."""
    results = json.loads((folder / "results.json").read_text())
    if (folder / "RESULTS.md").read_text() != "\n".join(text(results, folder)):
        yield "RESULTS.md is not what results.json says: run tests/bench/report.py"
    for name, question in CHARTS.items():
        if question not in results["questions"]:
            continue
        file = folder / "charts" / f"{name}.svg"
        found = re.search(r"drawn of ([0-9a-f]{64})", file.read_text()) if file.exists() else None
        if not found or found[1] != drawn_of(results, question):
            yield f"{file.name} is not drawn of what results.json says: run tests/bench/draw"
    if any(asked["quick"] for asked in results["questions"].values()):
        yield "results.json is of a quick run"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("folder", nargs="?", type=Path, default=HERE)
    options = parser.parse_args()
    if not options.check:
        write(options.folder)
        return 0
    problems = list(check(options.folder))
    print("\n".join(problems) or "the report is that of results.json")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
