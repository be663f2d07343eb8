"""Why a request was denied."""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """Why a request was denied. Numbers are never reused, and none can be taken for an HTTP status."""

    TOKEN_MISSING = 1100
    REQUEST_MALFORMED = 1101
    TOKEN_INACTIVE = 1200
    TOKEN_EXPIRED = 1201
    TOKEN_NOT_YET_VALID = 1202
    TOKEN_NOT_USABLE = 1203
    INSUFFICIENT_SCOPE = 1300
    CONSUMER_UNKNOWN = 1301
    ENDPOINT_UNREACHABLE = 1400
    ENDPOINT_TIMED_OUT = 1401
    ENDPOINT_UNAVAILABLE = 1402
    OVERLOADED = 1403
    ENDPOINT_REFUSED = 1410
    REPLY_MALFORMED = 1411
    ANONYMOUS_CONSUMER_MISSING = 1500
    INTERNAL = 1599

    def __str__(self) -> str:
        """Its name in logs and metrics: `token_missing`."""
        return self.name.lower()
