"""The facts of one machine, gathered on it: `pharos doctor` runs this here, or in an actor on every node.

Needs neither torch nor a GPU's library, so that it answers where those are broken.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import metadata, util
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import psutil

from pharos import __version__
from pharos.plan.doctor import Dashboard, Gpu, NodeFacts, Room, Wanted
from pharos.sweep.interface import interface_of

LIBRARIES = ("ray", "torch", "deepspeed", "transformers", "peft", "mlflow")
CONNECT_TIMEOUT_S = 3.0
MAX_CONNECTIONS_AT_ONCE = 32
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def node_facts(
    wanted: Wanted, *, node_id: str = "", address: str = "", is_head: bool = True, ray_dir: str | None = None
) -> NodeFacts:
    """This machine. Local places of `wanted` are looked at under their own paths; nothing is written.

    address: by which the other nodes know this one. ray_dir: Ray's temp directory, where it runs.
    """
    address = address or "this machine"
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    limit = _cgroup_limit() or memory.total
    interface = interface_of(address)
    local = [] if "://" in wanted.storage else [wanted.storage]
    rooms = [room(path) for path in (*local, *([ray_dir] if ray_dir else []))]
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    return NodeFacts(
        node_id=node_id,
        address=address,
        hostname=socket.gethostname(),
        is_head=is_head,
        versions={"python": platform.python_version(), "pharos": __version__}
        | {name: _version(name) for name in LIBRARIES},
        unmet=_unmet(),
        num_cpus=len(os.sched_getaffinity(0)),
        memory_bytes=min(limit, memory.total),
        available_bytes=min(limit, memory.available),
        gpus=gpus(),
        torch_cuda=_torch_cuda(),
        shared_memory=room("/dev/shm") if Path("/dev/shm").is_dir() else None,
        rooms=tuple({found.path: found for found in rooms if found is not None}.values()),
        swap_bytes=swap.total,
        swap_used_bytes=swap.used,
        max_open_files=-1 if most_files == resource.RLIM_INFINITY else most_files,
        interface=interface,
        interface_mbit=_interface_mbit(interface),
        tracking_problem=tracking_problem(wanted.tracking_uri),
        missing_paths=tuple(path for path in wanted.paths if not Path(path).exists()),
    )


def room(path: str) -> Room | None:
    """Of the file system that holds a path, or will; None where that cannot be asked."""
    place = next(place for place in (Path(path), *Path(path).parents) if place.exists())
    try:
        usage = shutil.disk_usage(place)
    except OSError:
        return None
    if not usage.total:  # such as /proc, on which nothing can be written anyway
        return None
    return Room(path=path, total_bytes=usage.total, free_bytes=usage.free)


def gpus(program: str = "nvidia-smi") -> tuple[Gpu, ...]:
    """As the NVIDIA driver lists them; none where there is no driver, or it does not answer."""
    if shutil.which(program) is None:
        return ()
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.stdout.splitlines()]
    return tuple(
        Gpu(name=row[0], memory_bytes=int(row[1]) * 2**20, driver=row[2])
        for row in rows
        if len(row) == 3 and row[1].isdigit()
    )


def tracking_problem(uri: str) -> str:
    """Why an MLflow server or database cannot be reached from here; empty where it can, and for a file.

    Any answer below 500 will do: that of a server which asks for a password says that it is there.
    """
    parts = urlsplit(uri)
    scheme = parts.scheme.split("+")[0]
    default = DATABASE_PORTS.get(scheme) or {"http": 80, "https": 443}.get(scheme)
    if default is None:
        return ""
    host, port = parts.hostname or "localhost", parts.port or default
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
        if scheme in ("http", "https"):
            urlopen(f"{scheme}://{host}:{port}{parts.path.rstrip('/')}/health", timeout=CONNECT_TIMEOUT_S).close()
    except HTTPError as error:
        return "" if error.code < 500 else f"its health is {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return _reason(error)
    return ""


class Examiner:
    """What an actor on each node does for the doctor: facts at first, then its part of what lies between nodes."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.listener: socket.socket | None = None

    def facts(self, wanted: Wanted, node_id: str, is_head: bool, ray_dir: str | None) -> NodeFacts:
        return node_facts(wanted, node_id=node_id, address=self.address, is_head=is_head, ray_dir=ray_dir)

    def clock(self) -> float:
        return time.time()

    def listen(self) -> int:
        """A port of this node's address at which the others may knock, chosen by the system as workers' ports are."""
        self.listener = socket.create_server((self.address, 0), backlog=1024)
        return int(self.listener.getsockname()[1])

    def free_port(self) -> int:
        with socket.create_server((self.address, 0)) as probe:
            return int(probe.getsockname()[1])

    def closed(self, targets: Sequence[tuple[str, int]]) -> list[tuple[int, str]]:
        """Which of these (host, port) cannot be connected to: their places in the list, and why."""
        with ThreadPoolExecutor(MAX_CONNECTIONS_AT_ONCE) as pool:
            reasons = list(pool.map(_cannot_connect, targets))
        return [(index, reason) for index, reason in enumerate(reasons) if reason]

    def dashboard(self, url: str) -> Dashboard:
        """url: host:port of Ray's dashboard. Asked of the jobs API, with no token."""
        host, _, port = url.rpartition(":")
        is_loopback_node = self.address.startswith("127.")
        is_public = not is_loopback_node and not _cannot_connect((self.address, int(port)))
        status, reason = None, ""
        try:
            with urlopen(f"http://{url}/api/jobs/", timeout=CONNECT_TIMEOUT_S) as response:
                status = response.status
        except HTTPError as error:
            status = error.code
        except (OSError, ValueError) as error:
            reason = _reason(error)
        return Dashboard(url=f"http://{host}:{port}", status=status, is_public=is_public, reason=reason)


def _cannot_connect(target: tuple[str, int]) -> str:
    try:
        socket.create_connection(target, CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return _reason(error)
    return ""


def _reason(error: BaseException) -> str:
    """Of an OSError its own words; URLError wraps the one that matters."""
    inner = getattr(error, "reason", None)
    error = inner if isinstance(inner, BaseException) else error
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT_S:g} s"
    return str(getattr(error, "strerror", None) or error)


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""


def _unmet() -> tuple[str, ...]:
    """What pharos asks of its libraries, and is not so: `torch 2.12.0, and pharos wants torch<2.14,>=2.13`."""
    from packaging.requirements import Requirement

    with suppress(metadata.PackageNotFoundError):
        wanted = [Requirement(text) for text in metadata.requires("pharos") or ()]
        needed = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
        versions = {one.name: _version(one.name) for one in needed}
        return tuple(
            f"{one.name} {versions[one.name] or 'is missing'}, and pharos wants {one.name}{one.specifier}"
            for one in needed
            if not versions[one.name] or not one.specifier.contains(versions[one.name], prereleases=True)
        )
    return ()


def _torch_cuda() -> str:
    """The CUDA version that torch is built for, read without loading it; empty for none."""
    spec = util.find_spec("torch")
    if spec is None or spec.origin is None:
        return ""
    with suppress(OSError):
        found = re.search(
            r"^cuda\b.*= *'([\d.]+)'", (Path(spec.origin).parent / "version.py").read_text(), re.MULTILINE
        )
        return found[1] if found else ""
    return ""


def _interface_mbit(interface: str) -> int | None:
    """The speed that an interface states; virtual ones state none, or -1."""
    with suppress(OSError, ValueError):
        stated = int(Path(f"/sys/class/net/{interface}/speed").read_text())
        return stated if stated > 0 else None
    return None


def _cgroup_limit() -> int | None:
    """The memory that a container may use, bytes; None where nothing limits it."""
    with suppress(OSError, ValueError):
        return int(Path("/sys/fs/cgroup/memory.max").read_text())
    return None
