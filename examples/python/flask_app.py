"""Flask, or any WSGI application: everything but /health wants a token.

    TOKENWARD_CONFIG=tokenward.json gunicorn --workers 2 --preload flask_app:app
"""

import os

from flask import Flask, request

from tokenward import Allow, Introspector
from tokenward.wsgi import TokenwardMiddleware

introspector = Introspector(os.environ.get("TOKENWARD_CONFIG", "tokenward.json"))
app = Flask(__name__)
app.wsgi_app = TokenwardMiddleware(app.wsgi_app, introspector, exclude=["/health"])


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/orders")
def orders() -> dict[str, str | None]:
    caller: Allow = request.environ["tokenward"]
    return {
        "consumer": request.remote_user,
        "subject": caller.claims.get("sub"),
        "scope": request.headers.get("X-Credential-Scope"),
    }
