"""Paths that pass without a token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class Paths:
    """Exact paths (`/health`), and everything below a prefix (`/static/*`).

    A path that a server or application might read as another one (empty or dot segments, a backslash, a NUL, an escape that is
    still there after decoding) is never among them.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        if isinstance(paths, str):
            raise TypeError("the paths that are excluded are an iterable of strings")
        exact: set[str] = set()
        prefixes: list[str] = []
        for path in paths:
            if not path.startswith("/") or "*" in path[:-1] or (path.endswith("*") and not path.endswith("/*")):
                raise ValueError(f"`{path}`: an excluded path is `/exact` or `/below/*`")
            if path.endswith("*"):
                prefixes.append(path[:-1])
            else:
                exact.add(path)
        self.exact = frozenset(exact)
        self.prefixes = tuple(prefixes)

    def __bool__(self) -> bool:
        return bool(self.exact or self.prefixes)

    def passes(self, environ: Mapping[str, Any], path: str) -> bool:
        """Whether it passes by a WSGI environment.

        A `SCRIPT_NAME` that came as a header (gunicorn takes it from trusted addresses, a proxy that passes everything on among them) says
        which part of the path the application does not look at: what it does look at has to be excluded by itself then.
        """
        return path in self and ("HTTP_SCRIPT_NAME" not in environ or environ.get("PATH_INFO", "") in self)

    def __contains__(self, path: str) -> bool:
        if path not in self.exact and not path.startswith(self.prefixes):
            return False
        segments = path.split("/")[1:]
        return not any(segment in (".", "..") for segment in segments) and not (
            "" in segments[:-1] or "\\" in path or "%" in path or "\0" in path or ";" in path
        )
