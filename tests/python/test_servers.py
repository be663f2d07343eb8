"""Each framework on a real server, against real authorization servers."""

import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import CONSUMERS
from support.servers import free_port, get, served

# Module, server, and whether it is one process.
SERVERS = {
    "FastAPI on uvicorn": ("uvicorn", "fastapi_app:app", 1),
    "FastAPI on uvicorn with two workers": ("uvicorn", "fastapi_app:app", 2),
    "Django on gunicorn": ("gunicorn", "django_app:application", 1),
    "Django on uvicorn": ("uvicorn", "django_app:asgi", 1),
    "Flask on gunicorn": ("gunicorn", "flask_app:app", 1),
    "Flask on gunicorn with preload and three workers": ("gunicorn", "flask_app:app", 3),
}


def serving(name, config, tmp_path):
    kind, app, workers = SERVERS[name]
    file = tmp_path / "tokenward.json"
    file.write_text(json.dumps({**config, "consumers": CONSUMERS}))
    port = free_port()
    if kind == "uvicorn":
        command = ["uvicorn", app, "--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
    else:
        command = ["gunicorn", app, "--bind", f"127.0.0.1:{port}", "--workers", str(workers), "--threads", "8"]
        command += ["--preload"] if workers > 1 else []
    return served(*command, port=port, environment={"TOKENWARD_CONFIG": str(file)})


@pytest.mark.parametrize("name", SERVERS)
def test_a_framework_knows_who_calls(name, authorization_server, tmp_path):
    alice, bob = authorization_server.token("alice"), authorization_server.token("bob")
    with serving(name, authorization_server.config, tmp_path) as (url, _, log):
        assert get(f"{url}/health")[0] == 200
        for _ in range(6):
            status, _, body = get(f"{url}/orders", alice, {"X-Consumer-Username": "root", "X_Consumer_ID": "1"})
            assert status == 200, body
            assert json.loads(body)["consumer"] == "alice"
        status, _, body = get(f"{url}/orders", bob)
        assert (status, json.loads(body)["consumer"]) == (200, None)

        status, headers, body = get(f"{url}/orders")
        assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="service"')
        assert json.loads(body) == {"error": "invalid_request", "error_description": "The access token is missing"}
        assert headers["Content-Type"] == "application/json; charset=utf-8"
        status, headers, body = get(f"{url}/orders", "never-issued")
        assert (status, json.loads(body)["error"]) == (401, "invalid_token")
        assert get(f"{url}/orders", "not a token")[0] == 400
        with ThreadPoolExecutor(16) as pool:
            token = authorization_server.token("alice")
            assert {status for status, *_ in pool.map(lambda _: get(f"{url}/orders", token), range(64))} == {200}
    said = log.read_text()
    assert alice not in said and authorization_server.config["client_auth"]["client_secret"] not in said


def test_a_scope_that_is_not_granted_is_refused_with_the_one_that_is_wanted(oidc, tmp_path):
    token = oidc.token("alice", "openid api:read")
    with serving("FastAPI on uvicorn", oidc.config, tmp_path) as (url, *_):
        status, headers, body = get(f"{url}/orders", token, method="DELETE")
        assert (status, json.loads(body)["error"]) == (403, "insufficient_scope")
        assert headers["WWW-Authenticate"] == 'Bearer realm="service", error="insufficient_scope", scope="api:write"'
        token = oidc.token("alice", "openid api:read api:write")
        assert get(f"{url}/orders", token, method="DELETE")[0] == 200
        document = json.loads(get(f"{url}/openapi.json")[2])
        assert document["components"]["securitySchemes"]["Tokenward"]["scheme"] == "bearer"
        assert document["paths"]["/orders"]["get"]["security"] == [{"Tokenward": []}]
        assert "security" not in document["paths"]["/health"]["get"]


def test_each_worker_of_a_preloading_master_has_connections_of_its_own(endpoint, tmp_path):
    name = "Flask on gunicorn with preload and three workers"
    with serving(name, {**endpoint.config, "cache": {"enabled": False}}, tmp_path) as (url, *_), ThreadPoolExecutor(24) as pool:
        users = [f"user{number}-{round}" for round in range(4) for number in range(60)]
        for user, (status, _, body) in zip(users, pool.map(lambda user: get(f"{url}/orders", user), users)):
            # Nobody gets the answer to another's question.
            assert (status, json.loads(body)["subject"]) == (200, f"subject of {user.split('-')[0]}")
    assert sorted(endpoint.calls) == sorted(users)


def raw(url, lines, target="/orders"):
    host, port = re.match(r"http://(.*):(\d+)", url).groups()
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n".encode("latin-1"))
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer.decode("latin-1")


@pytest.mark.parametrize("name", SERVERS)
def test_a_spoofed_header_reaches_no_application_in_any_spelling(name, endpoint, tmp_path):
    spoofed = ["X-Consumer-ID: root", "x_consumer_id: root", "X-Consumer_Username: root", "X_Credential_Scope: admin"]
    spoofed += ["X.Consumer.ID: root", "X-Anonymous-Consumer: true", "X-CREDENTIAL-SUB: root"]
    lines = "".join(f"{line}\r\n" for line in spoofed) + "Authorization: Bearer alice-1\r\n"
    with serving(name, endpoint.config, tmp_path) as (url, *_):
        answer = raw(url, lines)
        # A server may refuse a name that it would have to fold.
        assert answer.startswith(("HTTP/1.1 200", "HTTP/1.1 400")), answer
        assert "root" not in answer and "admin" not in answer
        answer = raw(url, lines.replace("X.Consumer.ID: root\r\n", ""))
        assert "root" not in answer and "admin" not in answer
        assert raw(url, "Authorization: Bearer alice-1\r\nAuthorization: Bearer root-1\r\n").startswith("HTTP/1.1 400")
