"""django-oauth-toolkit as a process: a second opinion on introspection. Commands come in and answers go out as lines of JSON."""

import datetime
import json
import sys
import threading
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1], "OPTIONS": {"timeout": 20}}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    LOGGING_CONFIG=None,
    MIDDLEWARE=[],
    OAUTH2_PROVIDER={"SCOPES": {"api:read": "read", "api:write": "write", "introspection": "introspect"}},
    ROOT_URLCONF=__name__,
    SECRET_KEY="for-tests-only",
    USE_TZ=True,
)
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import include, path  # noqa: E402
from django.utils import timezone  # noqa: E402
from oauth2_provider.models import AccessToken, Application  # noqa: E402

urlpatterns = [path("o/", include("oauth2_provider.urls", namespace="oauth2_provider"))]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


def say(answer):
    print(json.dumps(answer), flush=True)


call_command("migrate", verbosity=0)
owner = User.objects.create_user("owner")
secret = "t00lkit s3cret+of/the: gateway"
application = Application.objects.create(
    client_id="gateway",
    client_secret=secret,
    user=owner,
    client_type=Application.CLIENT_CONFIDENTIAL,
    authorization_grant_type=Application.GRANT_CLIENT_CREDENTIALS,
)
server = make_server("127.0.0.1", 0, get_wsgi_application(), Server, Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
say(
    {
        "introspection_url": f"http://127.0.0.1:{server.server_port}/o/introspect/",
        "client_auth": {"method": sys.argv[2], "client_id": "gateway", "client_secret": secret},
    }
)
for line in sys.stdin:
    command, name, *rest = json.loads(line)
    if command == "token":
        user, _ = User.objects.get_or_create(username=name)
        token = AccessToken.objects.create(
            user=user,
            token=f"{name}-{AccessToken.objects.count()}-opaque",
            application=application,
            expires=timezone.now() + datetime.timedelta(minutes=10),
            scope=rest[0] if rest else "api:read",
        )
        say(token.token)
    elif command == "revoke":
        say(AccessToken.objects.filter(token=name).delete()[0])
    else:
        raise SystemExit(f"no such command: {command}")
