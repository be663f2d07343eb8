"""Junk arrives at full speed: rejected tokens, each of them new. What becomes of the hits, and of memory?"""

import threading
import time

import harness
import hosts

HOT = 500
HOT_CONNECTIONS = 8
JUNK_CONNECTIONS = 32
# Tokens that a host may remember.
CAPACITY = 10_000


def ask(options, servers, say):
    rows = []
    for name in hosts.protected(options):
        with hosts.start(name, servers, capacity=CAPACITY) as host:
            host.check(["memory"])
            hosts.teach(host, HOT, 43)
            calm = hosts.load(host, "memory", HOT_CONNECTIONS, options.seconds * 3, count=HOT)
            memory = [host.memory_bytes()]
            junk = []
            began = time.monotonic()

            def send_junk():
                while (left := began + options.flood - time.monotonic()) > 0.5:
                    junk.append(hosts.load(host, "memory", JUNK_CONNECTIONS, min(2, round(left + 0.5)), head="inactive.",
                                           first=servers.new_tokens(10_000_000), count=0, alone=False))

            flood = threading.Thread(target=send_junk)
            flood.start()
            hot = []
            while time.monotonic() < began + options.flood - 1.5:
                hot.append(hosts.load(host, "memory", HOT_CONNECTIONS, 1, count=HOT, alone=False))
                memory.append(host.memory_bytes())
            flood.join()
            files = sum(file.stat().st_blocks * 512 for file in host.memory.rglob("*") if file.is_file())
            requests, misses = sum(one["requests"] for one in hot), sum(one["active"] for one in hot)
            sent = sum(one["requests"] for one in junk)
            row = {"peer": name, "hit_ratio": 1 - misses / requests, "hot_requests": requests, "hot_misses": misses,
                   "hit_ratios": harness.spread([1 - one["active"] / max(one["requests"], 1) for one in hot]),
                   "hot_refused": sum(one["refused"] + one["broken"] for one in hot),
                   "junk": sent, "junk_per_second": sent / sum(one["seconds"] for one in junk), "junk_calls": sum(one["inactive"] for one in junk),
                   "junk_rates": harness.spread([one["requests"] / one["seconds"] for one in junk]),
                   "junk_let_in": sent - sum(one["refused"] for one in junk), "calm_p99_us": calm["p99_us"],
                   "hot_p99_us": sorted(one["p99_us"] for one in hot)[len(hot) // 2], "memory_bytes": memory, "files_bytes": files}
            rows.append(row)
            say(f"flood, {name}: {row['junk_per_second']:.0f} rejected tokens/s, hit ratio {row['hit_ratio']:.4f}, p99 of hits "
                f"{row['calm_p99_us'] / 1000:.2f} ms before and {row['hot_p99_us'] / 1000:.2f} during, memory {memory[0] >> 20} to "
                f"{max(memory) >> 20} MiB, {files >> 20} MiB of files; {row['hot_refused']} good refused, {row['junk_let_in']} junk let in")
    return {"hot": HOT, "capacity": CAPACITY, "seconds": options.flood, "hot_connections": HOT_CONNECTIONS,
            "junk_connections": JUNK_CONNECTIONS, "rows": rows}
