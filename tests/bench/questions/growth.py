"""What do a hit and a token cost with 1000 to 1 000 000 tokens remembered? The core on one thread and on two, and hosts in whole."""

import json

import harness
import hosts

# The most that a host is taught: what takes long to teach is seen before.
MOST = {"nginx-tokenward": 1_000_000, "nginx-lua": 100_000, "nginx-njs": 100_000}
CONNECTIONS = 8


def ask(options, servers, say):
    sizes = [1_000, 10_000, 100_000] + ([] if options.quick else [1_000_000])
    return {"operations": options.operations, "rounds": options.core_rounds, "seconds": options.seconds, "connections": CONNECTIONS,
            "core": core(options, sizes, say), "hosts": [row for name in options.peers if name in MOST
                                                         for row in of_host(options, servers, name, sizes, say)]}


def core(options, sizes, say):
    rounds = {size: [] for size in sizes}
    for _ in range(options.core_rounds):
        for size in sizes:
            # On all processors: two threads are two.
            text = hosts.subprocess.run([str(hosts.SERVER), "growth", "--tokens", str(size), "--operations", str(options.operations)],
                                        check=True, capture_output=True, text=True).stdout
            rounds[size].append(json.loads(text))
    rows = []
    for size, ran in rounds.items():
        row = {"tokens": size, "bytes_per_token": harness.spread([one["bytes"] / size for one in ran])}
        for what in ["p50_ns", "p99_ns", "mean_ns"]:
            row[f"one_{what}"] = harness.spread([one["one_thread"][what] for one in ran])
            row[f"two_{what}"] = harness.spread([sum(thread[what] for thread in one["two_threads"]) / 2 for one in ran])
        rows.append(row)
        say(f"growth, core, {size}: {row['one_p50_ns']['median']:.0f} ns (p99 {row['one_p99_ns']['median']:.0f}), on two threads "
            f"{row['two_p50_ns']['median']:.0f} (p99 {row['two_p99_ns']['median']:.0f}), {row['bytes_per_token']['median']:.0f} bytes a token")
    return rows


def of_host(options, servers, name, sizes, say):
    rows, known = [], 0
    with hosts.start(name, servers) as host:
        host.check(["memory"])
        empty = host.memory_bytes()
        for size in sizes:
            if size > MOST[name] or options.quick and size > 10_000:
                break
            learnt = hosts.teach(host, size - known, 43, first=known, most_seconds=options.teach_seconds)
            known += learnt["known"]
            if known < size:
                say(f"{name}: only {known} tokens in {learnt['seconds']:.0f} s")
                break
            ran = [hosts.load(host, "memory", CONNECTIONS, options.seconds, count=size, offset=number * 104_729) for number in
                   range(options.core_rounds)]
            for one in ran:
                one["cpu_us"] = one["cpu_ns"] / 1000 / one["requests"]
            row = {"peer": name, "tokens": size, "memory_bytes": host.memory_bytes(), "bytes_per_token": (host.memory_bytes() - empty) / size,
                   "files_bytes": sum(file.stat().st_blocks * 512 for file in host.memory.rglob("*") if file.is_file()),
                   "misses": sum(one["active"] for one in ran), "requests": sum(one["requests"] for one in ran)}
            for what in ["p50_us", "p99_us", "cpu_us"]:
                row[what] = harness.spread([one[what] for one in ran])
            rows.append(row)
            say(f"growth, {name}, {size}: {row['cpu_us']['median']:.2f} us of CPU, p99 {row['p99_us']['median']:.0f} us, "
                f"{row['bytes_per_token']:.0f} bytes a token and {row['files_bytes'] / size:.0f} in files")
    return rows
