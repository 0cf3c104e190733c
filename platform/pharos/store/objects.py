"""Files of an object store below one URI, by names such as `sweep/events/000000.jsonl`: small, whole, never changed.

A store has no folders, no append and no rename. What is made of several objects is whole once its last one is there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from pyarrow.fs import FileSelector, FileSystem, FileType

from pharos.errors import StorageError
from pharos.store.uris import without_options

CHUNK_BYTES = 8 * 2**20
CONNECT_TIMEOUT_S = 5.0
RETRY_TIME_S = 20.0
FIRST_ANSWER_S = 30.0
"""A store that has not answered at all within this time is away."""
MAX_REASON = 240
S3_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""Environment variables that name another store than AWS's own, as AWS's tools read them."""
NO_BUCKET = ("NO_SUCH_BUCKET", "bucket does not exist", "NoSuchBucket")
DENIED = (
    *("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "INVALID_CLIENT_TOKEN_ID"),
    *("EXPIRED_TOKEN", "HTTP status 403", "HTTP status 401", "PERMISSION_DENIED", "UNAUTHENTICATED", "No credentials"),
)
AWAY = ("NETWORK_CONNECTION", "curlCode", "UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_TIMEOUT")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """files: a file system of pyarrow; root: the folder in it; shown: what to call it in messages."""

    files: FileSystem
    root: str
    shown: str

    def names(self, folder: str = "") -> dict[str, int]:
        """Name (below `folder`) -> bytes of every object in it, at any depth; empty where there is none."""
        selector = FileSelector(self._path(folder), recursive=True, allow_not_found=True)
        with self._errors():
            found = self.files.get_file_info(selector)
        start = len(self._path(folder)) + 1
        return {info.path[start:]: info.size for info in found if info.type == FileType.File}

    def folders(self, folder: str = "") -> list[str]:
        """Names of what a folder holds that is itself a folder."""
        if self._is_flat:
            return sorted({name.partition("/")[0] for name in self.names(folder) if "/" in name})
        selector = FileSelector(self._path(folder), allow_not_found=True)
        with self._errors():
            found = self.files.get_file_info(selector)
        return sorted(info.base_name for info in found if info.type == FileType.Directory)

    def modified_s(self, name: str) -> float | None:
        """When an object was written, by the store's own clock; none where there is none."""
        with self._errors():
            info = self.files.get_file_info(self._path(name))
        return info.mtime_ns / 1e9 if info.type == FileType.File and info.mtime_ns else None

    def read(self, name: str) -> bytes | None:
        """An object's content; none where there is none."""
        with self._errors():
            try:
                with self.files.open_input_stream(self._path(name), compression=None) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """An object appears whole, over one that is there."""
        with self._errors():
            self._make_room(name)
            with self.files.open_output_stream(self._path(name), compression=None) as stream:
                stream.write(content)

    def upload(self, file: Path, name: str) -> None:
        with self._errors(), file.open("rb") as source:
            self._make_room(name)
            with self.files.open_output_stream(self._path(name), compression=None) as target:
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)

    def download(self, name: str, file: Path) -> None:
        """Raises StorageError where there is no such object."""
        with (
            self._errors(),
            file.open("wb") as target,
            self.files.open_input_stream(self._path(name), compression=None) as source,
        ):
            while chunk := source.read(CHUNK_BYTES):
                target.write(chunk)

    def delete(self, name: str) -> None:
        """Delete an object; there may be none."""
        with self._errors():
            try:
                self.files.delete_file(self._path(name))
            except FileNotFoundError:
                return

    def delete_folder(self, folder: str) -> None:
        """Delete everything below a name; there may be nothing."""
        if self._is_flat:
            for name in self.names(folder):
                self.delete(f"{folder}/{name}")
            return
        with self._errors():
            try:
                self.files.delete_dir(self._path(folder))
            except FileNotFoundError:
                return

    def check(self) -> None:
        """Raise StorageError, soon, unless the store answers and has the bucket."""
        bucket = self.root.partition("/")[0]
        with self._errors():
            info = in_time(lambda: self.files.get_file_info(bucket), f"storage={self.shown}")
        if info.type == FileType.NotFound:
            raise self._no_bucket()

    @property
    def _is_flat(self) -> bool:
        """Whether pyarrow knows of no folder here that nobody has made: Google's store, unlike S3."""
        return bool(self.files.type_name == "gcs")

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _make_room(self, name: str) -> None:
        """A local file system wants a folder around a file; a store has none."""
        if self.files.type_name in ("local", "subtree"):
            self.files.create_dir(self._path(name).rpartition("/")[0], recursive=True)

    def _no_bucket(self) -> StorageError:
        bucket = self.root.partition("/")[0]
        return StorageError(
            f"storage={self.shown}: there is no bucket {bucket}. Create it, or correct the name; a bucket of another "
            "store than the cloud's own needs AWS_ENDPOINT_URL, or ?endpoint_override=HOST:PORT behind it."
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What a store answers, as one message that says what would help."""
        try:
            yield
        except (OSError, ValueError) as error:
            text = str(error)
            reason = short_reason(error)
            if any(sign in text for sign in NO_BUCKET):
                raise self._no_bucket() from error
            if any(sign in text for sign in DENIED) or isinstance(error, PermissionError):
                raise StorageError(
                    f"storage={self.shown}: the store refuses the credentials, or what they may do ({reason}). It must "
                    "let them list, read, write and delete below this prefix: set AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY (or Google's application default credentials) on every node, or give its "
                    "machines a role."
                ) from error
            if any(sign in text for sign in AWAY):
                raise away(f"storage={self.shown}", reason) from error
            raise StorageError(
                f"storage={self.shown}: {reason}. Once that is mended, run the same command again."
            ) from error


def short_reason(error: Exception) -> str:
    """The first line of what a store's library says, without its request ids and details."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    first = first.partition(" error_info=")[0].partition(" (Request ID")[0]
    return first if len(first) <= MAX_REASON else first[:MAX_REASON] + "..."


def away(what: str, reason: str) -> StorageError:
    return StorageError(
        f"{what}: the store does not answer ({reason}). Check the network, the region and the endpoint "
        "(AWS_ENDPOINT_URL, or ?endpoint_override=HOST:PORT&scheme=http behind the URI)."
    )


@cache
def open_store(uri: str) -> ObjectStore:
    """The store of a checked URI. Raises StorageError where its bucket cannot be found out about."""
    parts = urlsplit(uri)
    shown = without_options(uri)
    options = dict(parse_qsl(parts.query))
    root = f"{parts.hostname if parts.username else parts.netloc}{parts.path}".rstrip("/")
    files = _s3(options, parts.netloc, shown) if parts.scheme == "s3" else _gcs(options, parts.username)
    return ObjectStore(files, root, shown)


def in_time(ask: Callable[[], T], what: str, *, timeout_s: float = FIRST_ANSWER_S) -> T:
    """An answer, or StorageError after `timeout_s`: the libraries of stores ask again for minutes."""
    outcome: list[T | BaseException] = []

    def run() -> None:
        try:
            outcome.append(ask())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, name="pharos-store", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not outcome:
        raise away(what, f"nothing came back within {timeout_s:.0f} s")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _s3(options: dict[str, str], bucket: str, shown: str) -> FileSystem:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    endpoint = options.get("endpoint_override") or next(filter(None, map(os.environ.get, S3_ENDPOINTS)), None)
    scheme, separator, host = (endpoint or "").partition("://")
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    settings: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "retry_strategy": AwsStandardS3RetryStrategy(max_attempts=4),
        # A small object is one request then, not the three of a multipart upload.
        "allow_delayed_open": True,
    }
    if endpoint:
        settings["endpoint_override"] = (host if separator else endpoint).rstrip("/")
        settings["scheme"] = options.get("scheme") or (scheme if separator else "https")
        region = region or "us-east-1"
    elif region is None:
        try:
            region = in_time(lambda: resolve_s3_region(bucket), f"storage={shown}")
        except (OSError, ValueError) as error:
            if any(sign in str(error) for sign in AWAY):
                raise away(f"storage={shown}", short_reason(error)) from error
            raise StorageError(
                f"storage={shown}: the region of bucket {bucket} cannot be found out ({short_reason(error)}). Correct "
                "the name, or set AWS_REGION."
            ) from error
    return S3FileSystem(region=region, **settings)


def _gcs(options: dict[str, str], user: str | None) -> FileSystem:
    from pyarrow.fs import GcsFileSystem

    settings: dict[str, Any] = {"retry_time_limit": timedelta(seconds=RETRY_TIME_S), "anonymous": user == "anonymous"}
    if "endpoint_override" in options:
        settings |= {"endpoint_override": options["endpoint_override"], "scheme": options.get("scheme", "https")}
    return GcsFileSystem(**settings)
