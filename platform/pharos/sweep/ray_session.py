"""Ray for the length of a sweep: a cluster of our own on this machine, or one that is there already.

The dashboard process stays on: Ray Train asks its State API when it cleans up placement groups. Every socket of a
cluster of our own is on loopback, and wants a token wherever more than figures can be had: see `environment.LOCAL`.
What cannot be bound is the port at which torch's workers meet: it is on all interfaces as long as a pool is open.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import ray

from pharos.errors import ClusterError
from pharos.sweep.in_job import job_variables
from pharos.sweep.names import NAMESPACE

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 256 * 2**20
"""Pools exchange small values only; Ray's default would take a third of the memory."""

CONNECT_TIMEOUT_S = 5
ENDING_PATIENCE_S = 10
"""A process that Ray has told to end is given this long, then killed."""

# Of every worker of the job. One thread a worker: workers share the cores, and idle OpenMP threads spin.
WORKER = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
# Of the driver's environment, handed on to its workers where set: which network the ranks talk over.
HANDED_ON = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")

LOOPBACK_INTERFACE = "lo"
"""Where workers of a cluster of our own exchange shards and gradients; torch would ask what the host's name means."""
RAY_STARTUP_CONCURRENCY = "RAY_worker_maximum_startup_concurrency"
"""Ray spells the names of its settings in lower case."""


@contextmanager
def ray_session(
    *,
    address: str | None,
    num_cpus: int,
    num_processes: int,
    gpus: bool,
    threads_per_worker: int,
    dashboard_port: int | None,
) -> Iterator[None]:
    """Connect to `address`, or start Ray here. Raises ClusterError with the remedy when that cannot be.

    num_processes: how many Python processes the sweep will start on this machine.
    `environment.set_environment` must have run before Ray was imported.
    """
    worker_env = worker_environment(gpus=gpus, threads_per_worker=threads_per_worker)
    # Ray refuses a variable that the job of this driver was submitted with: what its user has set stands.
    worker_env = {name: value for name, value in worker_env.items() if name not in job_variables()}
    arguments = {
        "namespace": NAMESPACE,
        "runtime_env": {"env_vars": worker_env},
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if address is None:
        worker_env.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK_INTERFACE)
        # Ray warns on the terminal when it starts more processes than this; it takes its default from the cores.
        os.environ[RAY_STARTUP_CONCURRENCY] = str(max(num_processes, num_cpus))
        arguments |= {
            "num_cpus": num_cpus,
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
            "object_store_memory": OBJECT_STORE_BYTES,
        }
        if dashboard_port is not None:
            check_port(dashboard_port)
            arguments["dashboard_port"] = dashboard_port
    else:
        check_address(address)
        arguments["address"] = address
    not_of_ray = set(psutil.Process().children(recursive=True))
    # Ray prints what its daemons say of lost workers, whatever log_to_driver says; the event log tells it in our words.
    ray._private.worker.print_to_stdstream = _note
    try:
        ray.init(**arguments)
    except Exception as error:
        where = "on this machine" if address is None else f"at address={address}"
        raise ClusterError(f"Ray cannot be started {where}: {_first_line(error)}") from error
    if threading.current_thread() is threading.main_thread():
        # Ray takes SIGTERM for itself and ends the process; it is to interrupt a sweep as SIGINT does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        of_ray = set(psutil.Process().children(recursive=True)) - not_of_ray
        ray.shutdown()
        end_processes(of_ray)


def worker_environment(*, gpus: bool, threads_per_worker: int) -> dict[str, str]:
    """What every process of the sweep finds in its environment, on whatever node."""
    threads = {"OMP_NUM_THREADS": str(threads_per_worker)}
    networks = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    return WORKER | threads | networks | ({} if gpus else {"DS_ACCELERATOR": "cpu"})


def logs_directory() -> str:
    """Where Ray keeps the logs of this cluster's processes, the same path on every node."""
    return str(ray._private.worker.global_worker.node.get_logs_dir_path())


def refuse_second_actor(actor: str, key: str) -> None:
    """Raise ClusterError where the cluster has an actor of this name: another sweep, from another storage."""
    try:
        ray.get_actor(actor, namespace=NAMESPACE)
    except ValueError:
        return
    raise ClusterError(
        f"{key} is the name of a sweep that runs on this cluster already, from another storage. "
        "Wait for it, stop it, or give this one another name."
    )


def end_processes(processes: Iterable[psutil.Process]) -> None:
    """Wait until all have ended. `ray.shutdown` returns while its workers still notice that their raylet is gone."""
    _, left = psutil.wait_procs(processes, timeout=ENDING_PATIENCE_S)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=ENDING_PATIENCE_S)


def check_port(port: int) -> None:
    """Raise ClusterError when something else listens on a loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ClusterError(
                f"--dashboard-port={port} is in use ({error.strerror}). Leave the option out to have a free one chosen."
            ) from error


def check_address(address: str) -> None:
    """Raise ClusterError when nothing listens at host:port: Ray would ask again for ten minutes and more.

    What is no host:port, such as `auto`, is left to Ray; but for a dashboard's URL, which other verbs want.
    """
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            f"--address={address} is a cluster's dashboard, which takes jobs (submit, status, logs, stop, resume). "
            "Here it is the cluster itself: host:6379 of its head, or `auto` on one of its nodes."
        )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"--address={address} does not answer ({error}). Start the cluster, correct the address (or RAY_ADDRESS), "
            "or leave it out to start Ray on this machine."
        ) from error


def _note(data: dict[str, Any], ignore_prefix: bool) -> None:
    """A message of Ray's daemons, for whoever turns debugging on."""
    del ignore_prefix
    logger.debug("%s: %s", data.get("pid"), "\n".join(data["lines"]))


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
