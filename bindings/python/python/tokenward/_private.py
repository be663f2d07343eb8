"""Making an answer one for its client alone (RFC 6750 2.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable

# The members of a list, at commas outside of quoted strings.
_MEMBER = re.compile(r'((?:"(?:\\.|[^"\\])*"|[^,"]|")+)')
_SHARING = frozenset({"public", "private", "s-maxage"})


def merged(values: Iterable[str], private: str) -> str:
    """A `Cache-Control` that says `private`, whatever was said of shared caches, and keeps the other directives: `no-store` must not
    become weaker.
    """
    directives = [member.strip() for value in values for member in _MEMBER.findall(value)]
    kept = [one for one in directives if one and one.split("=", 1)[0].strip().lower() not in _SHARING]
    return ", ".join([private, *kept])


def with_private(lines: Iterable[tuple[str, str]], headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The lines of an answer of success with the headers that an allow adds."""
    lines = list(lines)
    for name, value in headers:
        same = [line for line in lines if line[0].lower() == name.lower()]
        if name.lower() == "cache-control":
            value = merged((line[1] for line in same), value)
        lines = [line for line in lines if line[0].lower() != name.lower()]
        lines.append((name, value))
    return lines
