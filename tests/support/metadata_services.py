"""The metadata services of AWS, GCP and Azure on loopback: real paths, headers and answers, refusing as they do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

NOTHING = (404, {}, "")


@dataclass(slots=True, kw_only=True)
class FakeCloud:
    """What one machine's metadata service says; a test changes it while it runs.

    asked: method and path of every question. fails: answer everything with 503.
    """

    kind: str
    asked: list[str] = field(default_factory=list)
    fails: bool = False
    # AWS
    token: str = "token-1"
    instance_action: dict[str, Any] | None = None
    rebalance: dict[str, Any] | None = None
    # GCP
    preempted: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)
    # Azure
    machine: str = "workers_3"
    events: list[dict[str, Any]] = field(default_factory=list)
    endpoint: str = ""

    def preempt_gcp(self) -> None:
        with self.changed:
            self.preempted = True
            self.changed.notify_all()

    def answer(self, method: str, target: str, headers: Any) -> tuple[int, dict[str, str], str]:
        self.asked.append(f"{method} {target}")
        if self.fails:
            return 503, {}, "try again"
        url = urlsplit(target)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        return {"aws": self._aws, "gcp": self._gcp, "azure": self._azure}[self.kind](method, url.path, asked, headers)

    def _aws(self, method: str, path: str, asked: dict[str, str], headers: Any) -> tuple[int, dict[str, str], str]:
        if (method, path) == ("PUT", "/latest/api/token"):
            if not 1 <= int(headers.get("X-aws-ec2-metadata-token-ttl-seconds", 0)) <= 21600:
                return 400, {}, "Bad Request"
            return 200, {}, self.token
        if headers.get("X-aws-ec2-metadata-token") != self.token:
            return 401, {}, "Unauthorized"
        said = {
            "/latest/meta-data/spot/instance-action": self.instance_action,
            "/latest/meta-data/events/recommendations/rebalance": self.rebalance,
        }.get(path)
        return NOTHING if said is None else (200, {}, json.dumps(said))

    def _gcp(self, method: str, path: str, asked: dict[str, str], headers: Any) -> tuple[int, dict[str, str], str]:
        if headers.get("Metadata-Flavor") != "Google":
            return 403, {}, "Missing Metadata-Flavor:Google header."
        flavor = {"Metadata-Flavor": "Google"}
        if path == "/computeMetadata/v1/instance/id":
            return 200, flavor, "4711"
        if path != "/computeMetadata/v1/instance/preempted":
            return NOTHING
        with self.changed:
            if asked.get("wait_for_change") == "true" and asked.get("last_etag") == self._etag():
                self.changed.wait(timeout=float(asked["timeout_sec"]))
            return 200, flavor | {"ETag": self._etag()}, "TRUE" if self.preempted else "FALSE"

    def _etag(self) -> str:
        return "b2" if self.preempted else "a1"

    def _azure(self, method: str, path: str, asked: dict[str, str], headers: Any) -> tuple[int, dict[str, str], str]:
        if headers.get("Metadata") != "true" or "api-version" not in asked:
            return 400, {}, '{"error": "Bad request. Required metadata header not specified"}'
        if path == "/metadata/instance/compute/name":
            return 200, {}, self.machine
        if path == "/metadata/scheduledevents" and asked["api-version"] == "2020-07-01":
            return 200, {}, json.dumps({"DocumentIncarnation": 1, "Events": self.events})
        return NOTHING


@contextmanager
def served(cloud: FakeCloud) -> Iterator[FakeCloud]:
    """The service on a free port of loopback; its `endpoint` says where."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = cloud.answer(self.command, self.path, self.headers)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        do_PUT = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: a test's output is its own."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    cloud.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield cloud
    finally:
        with cloud.changed:
            cloud.changed.notify_all()
        server.shutdown()
        server.server_close()
        thread.join()
