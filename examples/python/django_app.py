"""Django in one file: everything but /health wants a token.

    TOKENWARD_CONFIG=tokenward.json gunicorn django_app:application
    TOKENWARD_CONFIG=tokenward.json uvicorn django_app:asgi
"""

import os

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from tokenward import Allow

if not settings.configured:
    settings.configure(
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY", "for-development-only"),
        MIDDLEWARE=["tokenward.django.TokenwardMiddleware"],
        TOKENWARD={"CONFIG": os.environ.get("TOKENWARD_CONFIG", "tokenward.json"), "EXCLUDE": ["/health"]},
    )


def health(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "ok"})


def orders(request: HttpRequest) -> JsonResponse:
    caller: Allow = getattr(request, "tokenward")
    consumer = caller.identity.consumer
    return JsonResponse(
        {
            "consumer": consumer.username if consumer else None,
            "subject": caller.claims.get("sub"),
            "scope": request.headers.get("X-Credential-Scope"),
        }
    )


urlpatterns = [path("health", health), path("orders", orders)]
application = get_wsgi_application()
asgi = get_asgi_application()
