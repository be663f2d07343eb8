"""The packages for Python and Node.js beside what their users would take instead: their own comparisons, collected."""

import json
import os
import subprocess

import hosts


def ask(options, _servers, say):
    found = {}
    folder = hosts.TARGET / "bench"
    environment = {"TOKENWARD_NODE_PROJECT": str(hosts.TARGET / "node-tests"), **os.environ}
    for name in ["python", "node"]:
        to = folder / f"{name}.json"
        rounds = ["--rounds", options.rounds]
        if name == "node":  # by each of several generations of processes
            rounds = ["--rounds", max(1, options.rounds // 3), "--generations", 2 if options.quick else 5]
        command = [hosts.HERE / name / "run", *rounds, "--seconds", options.seconds, "--json", to]
        # Whose end is that of the hosts it has started.
        with hosts.Process(command, set(hosts.PROCESSORS), stdout=subprocess.DEVNULL, env=environment) as running:
            if running.process.wait() != 0:
                raise hosts.Failure(f"{name} could not be measured")
        results = json.loads(to.read_text())
        for target in results["targets"].values():
            del target["rounds"]
        found[name] = results
        for peer, target in results["targets"].items():
            say(f"{name}, {peer}: {target['cpu_ns_per_request']['median'] / 1000:.1f} us of CPU, "
                f"{target['cpu_ns_per_request_ratio']['median']:.3f} x")
    return found
