"""Claims as Python values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any


def parse(text: str) -> Mapping[str, Any]:
    """The members of a reply's object, read-only. Integers keep their digits, whatever their number."""
    return MappingProxyType(json.loads(text, parse_int=_integer))


def _integer(digits: str) -> int | Decimal:
    try:
        return int(digits)
    except ValueError:  # more digits than Python reads into an int
        return Decimal(digits)


def scopes(claims: Mapping[str, Any]) -> list[str]:
    """What the claim `scope` grants: the words of a string, or the strings of an array."""
    scope = claims.get("scope")
    if isinstance(scope, str):
        return [word for word in scope.split(" ") if word]
    if isinstance(scope, list):
        return [word for word in scope if isinstance(word, str)]
    return []
