"""A hub on loopback that answers as huggingface.co does, so that ids are really downloaded by the libraries themselves.

Repositories are folders; each publication is a commit. Endpoints, headers and codes are those that huggingface_hub 2.4
and datasets 5.2 ask for: repository info, tree, paths-info, and files by HEAD and GET, large ones behind a redirect.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

Kind = Literal["datasets", "models"]
Access = Literal["public", "gated", "private"]

LARGE = (".parquet", ".safetensors")
"""Files that the hub keeps in its large storage: HEAD and GET answer with a redirect to an address without a token."""
_API = re.compile(r"/api/(?P<kind>datasets|models)/(?P<name>[^/]+/[^/]+)(/(?P<verb>\w[\w-]*)/(?P<rest>.+))?")
_FILE = re.compile(r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass(slots=True)
class Repository:
    """snapshots: the folder of each commit; refs: the commit of each branch. tokens: whom a closed one lets in."""

    access: Access
    tokens: tuple[str, ...]
    snapshots: dict[str, Path] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit_of(self, revision: str) -> str | None:
        return revision if revision in self.snapshots else self.refs.get(revision)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. token: the bearer's, none where it came without."""

    method: str
    path: str
    token: str | None


class HubServer:
    """directory: where the published folders are copied to. requests: everything that was asked, in order.

    is_broken: whether it answers all with 503, as the hub does on a bad day.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[Asked] = []
        self.is_broken = False
        self._http: ThreadingHTTPServer | None = None
        self.url = ""

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """From here on connections to it are refused, as on a machine without a network."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def publish(
        self, kind: Kind, name: str, folder: Path, *, access: Access = "public", tokens: tuple[str, ...] = ()
    ) -> str:
        """Make the content of a folder the newest commit of a repository's main branch; returns the commit."""
        repository = self.repositories.setdefault((kind, name), Repository(access, tokens))
        commit = hashlib.sha1(f"{kind}/{name}/{len(repository.snapshots)}".encode()).hexdigest()
        shutil.copytree(folder, self.directory / kind / name / commit)
        repository.snapshots[commit] = self.directory / kind / name / commit
        repository.refs["main"] = commit
        return commit

    def environment(self, home: Path, **variables: str) -> dict[str, str]:
        """For a child process that asks this hub: no token and no cache but what lies below `home`, and bars drawn."""
        ours = {
            key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))
        }
        asks = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1,localhost"}
        # Without a terminal to draw on, the libraries would keep their bars to themselves.
        return ours | asks | {"HF_HUB_DISABLE_TELEMETRY": "1", "TQDM_POSITION": "-1"} | variables

    def run(self, *command: str | Path, home: Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Python with these arguments in a process of its own: HF_ENDPOINT is read when the libraries are loaded."""
        environment = self.environment(home, **variables)
        return subprocess.run(
            [sys.executable, *command],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@contextmanager
def hub_server(directory: Path) -> Iterator[HubServer]:
    """An empty hub until the end of the block, or until it is stopped."""
    hub = HubServer(directory)
    hub.start()
    try:
        yield hub
    finally:
        hub.stop()


class _Refused(Exception):
    """An answer that is none: its code and its headers."""

    def __init__(self, code: int, error: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.code = code
        self.headers = {"X-Error-Code": error, "X-Error-Message": message} | headers


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing: a test's terminal is not the server's log."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        address = urlsplit(self.path)
        path = unquote(address.path)
        bearer = self.headers.get("Authorization", "")
        token = bearer.removeprefix("Bearer ") or None
        self.hub.requests.append(Asked(self.command, path, token))
        try:
            if self.hub.is_broken:
                raise _Refused(503, "", "Service Unavailable")
            if path.startswith("/large/"):
                self._send_file(self.hub.directory / path.removeprefix("/large/"))
            elif found := _API.fullmatch(path):
                self._send_json(self._api(found.groupdict(), parse_qs(address.query) | parse_qs(body), token))
            elif found := _FILE.fullmatch(path):
                self._resolve(found.groupdict(), token)
            else:
                raise _Refused(404, "NotFound", "Not Found")
        except _Refused as refused:
            self._send(refused.code, b"", refused.headers)

    def _api(self, asked: dict[str, str], values: dict[str, list[str]], token: str | None) -> Any:
        """Info, tree and paths-info: of a gated repository anyone may see them, of a private one its own people."""
        repository = self._repository(asked["kind"], asked["name"], token)
        revision, _, inside = (asked["rest"] or "main").partition("/")
        commit = _commit(repository, revision)
        folder = repository.snapshots[commit]
        match asked["verb"]:
            case None | "revision":
                siblings = [{"rfilename": entry["path"]} for entry in _tree(folder, folder) if entry["type"] == "file"]
                return {"id": asked["name"], "sha": commit, "siblings": siblings, "tags": [], "private": False}
            case "tree":
                if not (folder / inside).is_dir():
                    raise _Refused(404, "EntryNotFound", "Entry not found")
                deep = values.get("recursive", ["false"])[0].lower() in ("true", "1")
                return [
                    entry
                    for entry in _tree(folder, folder / inside)
                    if deep or (folder / entry["path"]).parent == folder / inside
                ]
            case "paths-info":
                return [entry for entry in _tree(folder, folder) if entry["path"] in values.get("paths", [])]
            case _:
                raise _Refused(404, "NotFound", "Not Found")

    def _resolve(self, asked: dict[str, str], token: str | None) -> None:
        kind: Kind = "datasets" if asked["kind"] else "models"
        repository = self._repository(kind, asked["name"], token)
        if repository.access == "gated" and token not in repository.tokens:
            reason = "Access to it is restricted: you must have access and be authenticated."
            raise _Refused(401 if token is None else 403, "GatedRepo", reason)
        commit = _commit(repository, asked["revision"])
        file = repository.snapshots[commit] / asked["file"]
        if not file.is_file():
            raise _Refused(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit})
        if file.suffix in LARGE:
            # Under another name of this machine: no token may follow to where large files lie.
            place = f"{self.hub.url.replace('127.0.0.1', 'localhost')}/large/{file.relative_to(self.hub.directory)}"
            linked = {"X-Linked-Etag": f'"{_sha256(file)}"', "X-Linked-Size": str(file.stat().st_size)}
            self._send(302, b"", {"X-Repo-Commit": commit, "Location": place} | linked)
        else:
            self._send_file(file, {"X-Repo-Commit": commit})

    def _repository(self, kind: str, name: str, token: str | None) -> Repository:
        known = {token for repository in self.hub.repositories.values() for token in repository.tokens}
        if token is not None and token not in known:
            raise _Refused(401, "", "Invalid credentials in Authorization header")
        repository = self.hub.repositories.get((kind, name))
        if repository is None or (repository.access == "private" and token not in repository.tokens):
            # As the hub does: who is not logged in learns not even whether there is one.
            if token is None:
                raise _Refused(401, "RepoNotFound", "Invalid username or password.")
            raise _Refused(404, "RepoNotFound", "Repository not found")
        return repository

    def _send_json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send_file(self, file: Path, headers: dict[str, str] | None = None) -> None:
        etag = _sha256(file) if file.suffix in LARGE else _blob_id(file)
        self._send(200, file.read_bytes(), {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"} | (headers or {}))

    def _send(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        if "Authorization" not in self.headers:
            warning = "unauthenticated; You are sending unauthenticated requests to the HF Hub."
            headers = headers | {"X-HF-Warning": warning}
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _commit(repository: Repository, revision: str) -> str:
    commit = repository.commit_of(revision)
    if commit is None:
        raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return commit


def _tree(root: Path, folder: Path) -> list[dict[str, Any]]:
    """Everything below a folder, as the hub lists it: paths from the root of the repository."""
    entries: list[dict[str, Any]] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_dir():
            entries.append(
                {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0}
            )
            continue
        entry = {"type": "file", "path": name, "oid": _blob_id(path), "size": path.stat().st_size}
        if path.suffix in LARGE:
            entry["lfs"] = {"oid": _sha256(path), "size": path.stat().st_size, "pointerSize": 134}
        entries.append(entry)
    return entries


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _blob_id(file: Path) -> str:
    """As git names a file's content."""
    content = file.read_bytes()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
