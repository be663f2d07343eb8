"""Who is behind this OAuth 2.0 access token, and what may the upstream be told about them?

An `Introspector` decides about a `Request`: `Allow`, with the exact edits of the upstream request, or `Deny`, with the answer to
the client. `authenticate` blocks, `authenticate_async` is for asyncio, `begin` is for hosts that make the calls themselves.

    from tokenward import Allow, Deny, Introspector, Request

    introspector = Introspector("tokenward.json")
    match introspector.authenticate(Request("GET", "/orders", [("Authorization", "Bearer 2YotnFZFEjr1zCsicMWpAA")])):
        case Allow(identity):
            print(identity.kind, identity.consumer)
        case Deny(reason, status):
            print(status, reason)

Middleware is in `tokenward.asgi`, `tokenward.wsgi`, `tokenward.django` and `tokenward.fastapi`.
"""

from ._errors import CallFailed, ConfigError, ConfigWarning, Problem
from ._introspector import Introspector, Snapshot
from ._reason import Reason
from ._tokenward import Allow, Consumer, Deny, Identity, Introspect, Policy, Request, User, Wait, is_managed
from ._transport import Answer, Call, Transport

__all__ = [
    "Allow",
    "Answer",
    "Call",
    "CallFailed",
    "ConfigError",
    "ConfigWarning",
    "Consumer",
    "Deny",
    "Identity",
    "Introspect",
    "Introspector",
    "Policy",
    "Problem",
    "Reason",
    "Request",
    "Snapshot",
    "Transport",
    "User",
    "Wait",
    "is_managed",
]
