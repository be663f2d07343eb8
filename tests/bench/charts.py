"""Draws charts/*.svg of results.json. `tests/bench/draw` runs it, with the library that it needs.

A chart is the same, byte for byte, whenever it is drawn of the same figures, and bears a hash of them and of this file.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402
import matplotlib.ticker  # noqa: E402

import report  # noqa: E402

COLOURS = {
    "nginx": "#9a9a9a", "nginx-tokenward": "#0b6e4f", "nginx-lua": "#4caf7d", "nginx-njs": "#e08e45",
    "apache": "#9a9a9a", "apache-oauth2": "#b5475c", "apache-openidc": "#7a5ba6",
}
SHORT = {
    "nginx": "nginx, open", "nginx-tokenward": "Tokenward module", "nginx-lua": "Tokenward Lua",
    "nginx-njs": "auth_request + njs", "apache": "Apache, open", "apache-oauth2": "mod_oauth2", "apache-openidc": "mod_auth_openidc",
}
plt.rcParams.update({
    "svg.hashsalt": "tokenward", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "figure.constrained_layout.use": True, "axes.titlesize": 10, "legend.frameon": False,
})


def errors(spreads, scale=1.0):
    """Quartiles about the median, as distances."""
    return [[(one["median"] - one["quartiles"][0]) / scale for one in spreads], [(one["quartiles"][1] - one["median"]) / scale for one in spreads]]


def bars(axes, names, spreads, scale=1.0, form="{:.1f}", log=False, notes=None):
    """Lying bars, one a peer, with quartiles as error marks and the figure beside."""
    places = range(len(names))
    values = [one["median"] / scale for one in spreads]
    axes.barh(places, values, xerr=errors(spreads, scale), color=[COLOURS.get(name, "#888888") for name in names], height=0.7,
              error_kw={"elinewidth": 1, "capsize": 2.5, "ecolor": "#333333"}, log=log)
    axes.set_yticks(places, [SHORT.get(name, name) + note for name, note in zip(names, notes or [""] * len(names))])
    axes.invert_yaxis()
    ends = [one["quartiles"][1] / scale for one in spreads]
    for place, value, end in zip(places, values, ends):
        axes.annotate(form.format(value), (end, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_xlim(right=max(ends) * (3 if log else 1.22))
    if not log:
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))


def hits(asked):
    groups = {}
    for row in asked["rows"]:
        groups.setdefault(report.tokens_of({**row, "tokens": row["wanted"]}), {}).setdefault(row["kind"], []).append(row)
    figure, grid = plt.subplots(len(groups), 2, figsize=(10, 0.6 + 2.3 * len(groups)), squeeze=False)
    for line, (tokens, kinds) in zip(grid, groups.items()):
        for axes, kind in zip(line, ["memory", "proxied"]):
            rows = kinds.get(kind, [])
            if not rows:
                axes.set_axis_off()
                continue
            notes = ["" if row["tokens"] == row["wanted"] else f"\n({report.number(row['tokens'])} tokens)" for row in rows]
            bars(axes, [row["peer"] for row in rows], [row["cpu_us"] for row in rows], notes=notes)
            axes.set_title(f"{'from memory' if kind == 'memory' else 'proxied'}, {tokens}")
    for axes in grid[-1]:
        axes.set_xlabel("CPU time of a request, µs (less is better)")
    return figure


def misses(asked):
    delays = sorted({row["delay_ms"] for row in asked["rows"]})
    figure, grid = plt.subplots(2, len(delays), figsize=(12, 4.6), squeeze=False)
    for column, delay in enumerate(delays):
        rows = [row for row in asked["rows"] if row["delay_ms"] == delay]
        names = [row["peer"] for row in rows]
        bars(grid[0][column], names, [row["per_second"] for row in rows], form="{:.0f}")
        grid[0][column].set_title(f"server takes {delay} ms")
        grid[0][column].set_xlabel("misses a second (more is better)")
        bars(grid[1][column], names, [row["p99_us"] for row in rows], 1000, "{:.0f}")
        grid[1][column].set_xlabel("p99, ms (less is better)")
        if column > 0:
            for line in grid:
                line[column].set_yticklabels([])
    return figure


def herd(asked):
    figure, axes = plt.subplots(figsize=(8, 2.6))
    bars(axes, [row["peer"] for row in asked["rows"]], [row["calls"] for row in asked["rows"]], form="{:.0f}", log=True)
    axes.set_xlabel(f"calls to the authorization server for {asked['clients']} clients with one new token (1 is best)")
    return figure


def outage(asked):
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), width_ratios=[1.6, 1])
    for row in asked["rows"]:
        times = [window[2] / 1000 if window[2] is not None else float("nan") for window in row["windows"]]
        left.plot(range(1, len(times) + 1), times, color=COLOURS[row["peer"]], label=SHORT[row["peer"]], marker=".", markersize=3, linewidth=1.2)
    first = asked["rows"][0]["windows"]
    during = [place for place, window in enumerate(first, 1) if window[0] == "during"]
    left.axvspan(during[0] - 0.5, during[-1] + 0.5, color="#f3e6d0", zorder=0)
    left.set_yscale("log")
    left.set_title("remembered tokens")
    left.set_xlabel("windows of a second (shaded: the server hangs)")
    left.set_ylabel("p99, ms")
    left.legend(fontsize=8, ncols=2)
    names = [row["peer"] for row in asked["rows"]]
    spreads = [{"median": row["misses_during"]["p50_ms"] / 1000, "quartiles": [row["misses_during"]["p50_ms"] / 1000, row["misses_during"]["max_ms"] / 1000]}
               for row in asked["rows"]]
    bars(right, names, spreads, form="{:.2f}")
    right.axvline(asked["timeout_seconds"], color="#333333", linewidth=0.8, linestyle="--")
    right.set_title("new tokens in the outage")
    right.set_xlabel("median and slowest answer, s (dashed: the limit)")
    return figure


def growth(asked):
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6))
    sizes = [row["tokens"] for row in asked["core"]]
    for threads, colour in [("one", "#0b6e4f"), ("two", "#e08e45")]:
        for what, line in [("p50", "-"), ("p99", ":")]:
            spreads = [row[f"{threads}_{what}_ns"] for row in asked["core"]]
            left.errorbar(sizes, [one["median"] for one in spreads], errors(spreads), color=colour, linestyle=line, marker=".", capsize=2,
                          label=f"{what}, {threads} thread{'s' if threads == 'two' else ''}")
    left.set_title("the core: a hit")
    left.set_ylabel("ns")
    spreads = [row["bytes_per_token"] for row in asked["core"]]
    middle.errorbar(sizes, [one["median"] for one in spreads], errors(spreads), color="#333333", marker=".", capsize=2, label="the core")
    for peer in dict.fromkeys(row["peer"] for row in asked["hosts"]):
        rows = [row for row in asked["hosts"] if row["peer"] == peer]
        style = {"color": COLOURS[peer], "marker": ".", "label": SHORT[peer]}
        middle.plot([row["tokens"] for row in rows], [row["bytes_per_token"] + row["files_bytes"] / row["tokens"] for row in rows], **style)
        spreads = [row["cpu_us"] for row in rows]
        right.errorbar([row["tokens"] for row in rows], [one["median"] for one in spreads], errors(spreads), capsize=2, **style)
    middle.set_title("memory, with files")
    middle.set_ylabel("bytes a token")
    middle.set_yscale("log")
    right.set_title("hosts: a hit, from memory")
    right.set_ylabel("CPU time, µs")
    for axes in [left, middle, right]:
        axes.set_xscale("log")
        axes.set_xlabel("tokens remembered")
        axes.set_ylim(bottom=None if axes is middle else 0)
        axes.legend(fontsize=8)
    return figure


def flood(asked):
    figure, grid = plt.subplots(1, 3, figsize=(12, 2.8))
    names = [row["peer"] for row in asked["rows"]]

    def spreads(of, whole):
        return [row.get(of, {"median": row[whole], "quartiles": [row[whole]] * 2}) for row in asked["rows"]]

    bars(grid[0], names, spreads("hit_ratios", "hit_ratio"), 0.01, "{:.2f}")
    grid[0].set_xlabel("good tokens answered from the cache, %")
    bars(grid[1], names, spreads("junk_rates", "junk_per_second"), form="{:.0f}")
    grid[1].set_xlabel("tokens rejected a second")
    memory = [[held / 2**20 for held in row["memory_bytes"]] for row in asked["rows"]]
    files = [row["files_bytes"] / 2**20 for row in asked["rows"]]
    bars(grid[2], names, [{"median": max(held) + file, "quartiles": [held[0], max(held) + file]} for held, file in zip(memory, files)], form="{:.0f}")
    grid[2].set_xlabel("memory and files at most, MiB (mark: before)")
    for axes in grid[1:]:
        axes.set_yticklabels([])
    return figure


def languages(asked):
    figure, grid = plt.subplots(1, 2, figsize=(10, 2.4))
    for axes, (name, what) in zip(grid, [("python", "ASGI application on uvicorn"), ("node", "Fastify application")]):
        targets = asked[name]["targets"]
        names = list(targets)
        bars(axes, names, [targets[peer]["cpu_ns_per_request"] for peer in names], 1000, "{:.0f}")
        for place, peer in enumerate(names):
            axes.patches[place].set_color("#0b6e4f" if peer == "tokenward" else "#9a9a9a" if peer == "bare" else "#e08e45")
        axes.set_title(what)
        axes.set_xlabel("CPU time of a request, µs (less is better)")
    return figure


def draw(folder):
    results = json.loads((folder / "results.json").read_text())
    (folder / "charts").mkdir(exist_ok=True)
    for name, question in report.CHARTS.items():
        if question in results["questions"]:
            figure = globals()[name](results["questions"][question])
            figure.savefig(folder / "charts" / f"{name}.svg",
                           metadata={"Date": None, "Creator": None, "Description": f"drawn of {report.drawn_of(results, question)}"})
            plt.close(figure)
    report.write(folder)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else report.HERE)
