"""What `tests/run bench` asks, one module each: `ask(options, servers, say)` gives what goes into results.json under its name."""
