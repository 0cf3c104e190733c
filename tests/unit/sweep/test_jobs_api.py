"""A cluster that cannot be used is told of in one message, and quickly: away, silent, no Ray, another token."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pharos.errors import ClusterError
from pharos.sweep import jobs_api
from pharos.sweep.jobs_api import JobsApi, url_of

Answer = Callable[[str, str], tuple[int, str]]


@contextmanager
def dashboard(answer: Answer) -> Iterator[str]:
    """A server on loopback that answers (method, path) with a status and a text."""

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, text = answer(self.command, self.path)
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_PUT = _reply

        def log_message(self, *arguments: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def version_or(rest: tuple[int, str]) -> Answer:
    said = json.dumps({"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""})
    return lambda method, path: (200, said) if path == "/api/version" else rest


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://head:8265/", "http://head:8265"),
        ("https://ray.example.org", "https://ray.example.org"),
        ("head:8265", "http://head:8265"),
    ],
)
def test_an_address_is_that_of_the_dashboard(address: str, url: str) -> None:
    assert url_of(address) == url


@pytest.mark.parametrize("address", ["ray://head:10001", "s3://bucket", "http://"])
def test_another_kind_of_address_is_refused_with_the_right_one(address: str) -> None:
    with pytest.raises(ClusterError, match=rf"--address={address} is no address of a cluster's jobs.*http://\w+:8265"):
        url_of(address)


def test_a_cluster_that_is_away_is_named_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(ClusterError, match=rf"--address=http://127.0.0.1:{port} does not answer \(.*refused\).*ssh -L"):
        JobsApi(f"127.0.0.1:{port}")


def test_one_that_takes_the_connection_and_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_api, "ANSWER_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ClusterError, match=rf"--address=http://127.0.0.1:{port} does not answer as .*timed out"):
            JobsApi(f"127.0.0.1:{port}")


@pytest.mark.parametrize("said", ["<html>", "{}", "[]"])
def test_what_is_no_ray_at_all_is_refused(said: str) -> None:
    with (
        dashboard(lambda method, path: (200, said)) as url,
        pytest.raises(ClusterError, match=rf"--address={url} does not answer as a cluster's dashboard.*port 8265"),
    ):
        JobsApi(url)


@pytest.mark.parametrize(("code", "text"), [(401, "Unauthorized: Missing"), (403, "Forbidden: Invalid")])
def test_a_cluster_that_wants_a_token_is_told_of_with_where_it_goes(
    code: int, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with (
        dashboard(lambda method, path: (code, text)) as url,
        pytest.raises(ClusterError, match=rf"--address={url} wants the cluster's token.*RAY_AUTH_TOKEN_PATH.*`ray get"),
    ):
        JobsApi(url)


def test_the_address_given_counts_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    with dashboard(version_or((200, "[]"))) as url:
        assert JobsApi(url).jobs() == []
    assert os.environ["RAY_ADDRESS"] == os.environ["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:1"


def test_a_head_that_has_just_started_is_asked_again_but_no_other_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_api.time, "sleep", lambda _: None)
    answers = [
        (500, "No available agent to submit job"),
        (500, "No available agent"),
        (200, '{"job_id": "a", "submission_id": "a"}'),
    ]
    request = {"entrypoint": "true", "submission_id": "a", "runtime_env": {}, "metadata": {}}

    def answer(method: str, path: str) -> tuple[int, str]:
        return answers.pop(0) if method == "POST" else version_or((200, "[]"))(method, path)

    with dashboard(answer) as url:
        JobsApi(url).submit(**request)
    assert answers == []
    asked: list[str] = []

    def refuse(method: str, path: str) -> tuple[int, str]:
        asked.append(method)
        return version_or((500, "Job with submission_id a already exists"))(method, path)

    with dashboard(refuse) as url, pytest.raises(ClusterError, match="did not do it: .*already exists"):
        JobsApi(url).submit(**request)
    assert asked.count("POST") == 1
