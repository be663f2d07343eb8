import asyncio
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from support.servers import Endpoint, Process, ROOT  # noqa: E402

from tokenward import Introspector  # noqa: E402

CONSUMERS = [{"id": "7", "username": "alice", "custom_id": "customer-1", "tags": ["gold"]}, {"id": "3", "username": "guest"}]


@pytest.fixture(scope="session", autouse=True)
def temporary(tmp_path_factory):
    os.environ["PYTEST_TMP"] = str(tmp_path_factory.mktemp("servers"))


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


@pytest.fixture
def introspector(endpoint):
    return Introspector(endpoint.config, CONSUMERS)


@pytest.fixture(scope="session")
def oidc():
    server = Process("node", str(ROOT / "tests/python/support/oidc.mjs"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def toolkit(tmp_path_factory):
    program = str(ROOT / "tests/python/support/oauth_toolkit.py")
    database = str(tmp_path_factory.mktemp("toolkit") / "db.sqlite3")
    server = Process(sys.executable, program, database, "client_secret_basic")
    yield server
    server.close()


@pytest.fixture(params=["oidc-provider", "django-oauth-toolkit"])
def authorization_server(request):
    return request.getfixturevalue({"oidc-provider": "oidc", "django-oauth-toolkit": "toolkit"}[request.param])


@pytest.fixture
def run():
    """Runs a coroutine to its end, within a minute."""

    def run(coroutine):
        return asyncio.run(asyncio.wait_for(coroutine, 60))

    return run


@pytest.fixture
def known():
    """An introspector that knows `alice` already."""
    from support.asgi import knowing

    return knowing({})
