"""Ray's jobs API over HTTP: reached quickly or refused in one message. All that Pharos asks of it goes through here.

Security, as measured on ray 2.60 with a token: the dashboard, through which jobs are submitted, listens on loopback
unless `ray start --dashboard-host` says otherwise, and answers 401 without a token and 403 with a wrong one; the bare
page alone is anybody's. Each node's agent listens at loopback and the node's address (52365), and does the same. GCS,
raylets, workers and agents speak gRPC on all interfaces and want the token. Prometheus' ports (the agents', 44217 and
44227 of the head) are on all interfaces too and answer anybody, with figures. So a firewall or a network policy belongs
around a cluster all the same.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from pharos.errors import ClusterError
from pharos.sweep.environment import set_environment

DASHBOARD_PORT = 8265
CONNECT_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 30
UPLOAD_TIMEOUT_S = 300
AGENT_PATIENCE_S = 30
"""A head that has just started has no agent yet that could run a job."""
NO_AGENT = "No available agent"
ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""What Ray's client takes instead of the address that it is given."""


class JobsApi:
    """The jobs of one cluster. Every method raises ClusterError, with the remedy, where it is not done."""

    def __init__(self, address: str) -> None:
        self.address = url_of(address)
        _check_port(self.address)
        set_environment(address=self.address)
        with self._told("does not answer as a cluster's dashboard does, which has port 8265 unless it was set"):
            self._client = _client(self.address)

    def submit(self, **request: Any) -> None:
        """Submit a job: entrypoint, submission_id, runtime_env (local folders in it are uploaded) and metadata."""
        deadline_s = time.monotonic() + AGENT_PATIENCE_S
        while True:
            try:
                with self._told():
                    self._client.submit_job(**request)
                return
            except ClusterError as error:
                if NO_AGENT not in error.message or time.monotonic() > deadline_s:
                    raise
            time.sleep(1)

    def jobs(self) -> list[Any]:
        """Ray's JobDetails of all jobs that were submitted, the first first."""
        with self._told():
            found = self._client.list_jobs()
        return sorted((job for job in found if job.submission_id), key=lambda job: job.start_time or 0)

    def job(self, submission_id: str) -> Any:
        """Ray's JobDetails."""
        with self._told():
            return self._client.get_job_info(submission_id)

    def log(self, submission_id: str) -> str:
        """All that the job has written so far."""
        with self._told():
            return str(self._client.get_job_logs(submission_id))

    def stop(self, submission_id: str) -> None:
        """Ask the job to stop; returns at once."""
        with self._told():
            self._client.stop_job(submission_id)

    @contextmanager
    def _told(self, failure: str = "did not do it") -> Iterator[None]:
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise ClusterError(
                f"--address={self.address} wants the cluster's token, and {_token_given()}. Set RAY_AUTH_TOKEN to it, "
                "or RAY_AUTH_TOKEN_PATH to a file that holds it, or put it into ~/.ray/auth_token; on the head node "
                "`ray get-auth-token` prints it."
            ) from error
        except (OSError, RuntimeError, ValueError) as error:
            # Errors of requests are OSErrors; Ray's client raises RuntimeError for every other answer than 200.
            raise ClusterError(f"--address={self.address} {failure}: {_reason(error)}") from error
        except (KeyError, TypeError) as error:  # JSON, but not Ray's
            raise ClusterError(f"--address={self.address} {failure}: it is something else than Ray.") from error


def url_of(address: str) -> str:
    """The URL of a cluster's dashboard. Raises ClusterError for an address that is another kind of Ray's."""
    url = address.rstrip("/") if "://" in address else f"http://{address}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClusterError(
            f"--address={address} is no address of a cluster's jobs. It is that of the dashboard: "
            f"http://{parts.hostname or 'HEAD'}:{DASHBOARD_PORT}"
        )
    return url


def _client(url: str) -> Any:
    """Ray's client, with limits of time: its requests have none and would wait for ever."""
    from ray.job_submission import JobSubmissionClient

    for name in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
        logging.getLogger(name).setLevel(logging.WARNING)  # at INFO they tell of each upload

    class Client(JobSubmissionClient):
        def _do_request(self, method: str, endpoint: str, **given: Any) -> Any:
            limit_s = UPLOAD_TIMEOUT_S if method == "PUT" else ANSWER_TIMEOUT_S
            return super()._do_request(method, endpoint, **{"timeout": (CONNECT_TIMEOUT_S, limit_s)} | given)

    ours = {name: os.environ.pop(name) for name in ADDRESSES if name in os.environ}
    try:
        return Client(url)
    finally:
        os.environ.update(ours)


def _check_port(url: str) -> None:
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ClusterError(
            f"--address={url} does not answer ({error.strerror or error}). Start the cluster, correct the address, or "
            f"open a tunnel to its head node: ssh -L {DASHBOARD_PORT}:localhost:{DASHBOARD_PORT} HEAD"
        ) from error


def _token_given() -> str:
    if os.environ.get("RAY_AUTH_MODE") == "token":
        return "the one that was found here is another, or empty"
    return "none was found here"


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
