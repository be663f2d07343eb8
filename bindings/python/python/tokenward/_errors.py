"""What can go wrong outside of a request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Problem(NamedTuple):
    """One thing that is wrong with a configuration. Never holds a secret."""

    path: str
    """The place in the document: `cache.negative_ttl`; empty for the document itself."""
    message: str
    """What was found there and what is allowed."""

    def __str__(self) -> str:
        return f"`{self.path or 'the document'}`: {self.message}"


class ConfigError(ValueError):
    """A configuration, policy or list of consumers that cannot be used: all of its errors, in the order of the document."""

    problems: tuple[Problem, ...] = ()
    """The errors, at least one."""

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        self.problems = tuple(Problem(path, message) for path, message in problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[tuple[str, str]]]]:
        return type(self), ([tuple(problem) for problem in self.problems],)


class ConfigWarning(UserWarning):
    """Something in a configuration that is allowed and probably not meant."""


class CallFailed(Exception):
    """Raised by a transport: how a call to the introspection endpoint failed.

    One of `connect`, `dns`, `tls`, `closed` (before the answer's header section was complete), `timed_out`, `protocol`,
    `too_long`, `cut_off` (within the body). After `connect` or `closed` there may be another try.
    """

    def __init__(self, failure: str) -> None:
        super().__init__(failure)
        self.failure = failure
