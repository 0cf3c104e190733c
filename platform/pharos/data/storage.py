"""Bytes of data files wherever they lie: local paths and URIs, plain or compressed with gzip or Zstandard.

What the bytes mean is read in `readers.py`. Libraries for object stores are loaded only for a URI that needs them.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

READ_ERRORS = (OSError, EOFError, zlib.error, ValueError)
"""What reading a file can raise that is damaged, cut off or out of reach (pyarrow's errors are ValueErrors)."""
COMPRESSED_SUFFIXES = (".gz", ".zst")
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
REMOTE_BUFFER_BYTES = 2**20
ARROW_SCHEMES = ("s3", "gs", "gcs", "hdfs", "abfs", "abfss")
"""What pyarrow reaches by itself; other URIs need fsspec's package for them."""


def is_uri(name: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]+://", name) is not None


def plain_suffix(name: str) -> str:
    """The suffix that tells the kind of a file, without that of its compression: .jsonl for rows.jsonl.gz."""
    path = Path(name.lower().partition("?")[0])
    return Path(path.stem).suffix if path.suffix in COMPRESSED_SUFFIXES else path.suffix


def find_remote(uri: str, suffixes: tuple[str, ...]) -> list[str]:
    """The files that a URI means: itself, what a directory of them holds directly, or what a glob matches, in order.

    Raises one of READ_ERRORS, or ImportError where the scheme needs a package that is not installed.
    """
    scheme = uri.partition("://")[0]
    options = uri[uri.index("?") :] if "?" in uri else ""  # such as ?endpoint_override=... of a store that is not AWS's
    files, path = _file_system(uri)
    if any(letter in path for letter in "*["):
        found = sorted(name for name in files.glob(path) if files.isfile(name))
    elif files.isdir(path):
        found = sorted(name for name in files.ls(path, detail=False) if plain_suffix(name) in suffixes)
    else:
        found = [path] if files.isfile(path) else []
    return [f"{scheme}://{name.lstrip('/')}{options}" for name in found]


def open_bytes(location: str) -> BinaryIO:
    """A file opened for reading, decompressed where its content says so. Raises one of READ_ERRORS."""
    raw = open_raw(location)
    start = raw.read(4)
    raw.seek(0)
    compression = next((name for magic, name in MAGIC.items() if start.startswith(magic)), None)
    if compression is None and location.lower().endswith(COMPRESSED_SUFFIXES):
        raw.close()
        raise ValueError(f"its name ends with {Path(location).suffix}, but it is not compressed so")
    if compression == "gzip":
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if compression == "zstd":
        import pyarrow

        return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), "zstd"))
    return raw


def open_raw(location: str) -> BinaryIO:
    """The bytes of a file as they lie. Raises one of READ_ERRORS."""
    if not is_uri(location):
        return Path(location).open("rb")
    files, path = _file_system(location)
    if location.partition("://")[0] not in ARROW_SCHEMES:
        return cast(BinaryIO, files.open(path, "rb"))
    # A file of pyarrow's reads a line byte by byte, and each byte is a request to the store.
    return io.BufferedReader(files.fs.open_input_file(path), REMOTE_BUFFER_BYTES)


def _file_system(uri: str) -> tuple[Any, str]:
    """A file system with fsspec's interface, and the path of the URI in it."""
    import fsspec

    if uri.partition("://")[0] in ARROW_SCHEMES:
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow.fs import FileSystem

        files, path = FileSystem.from_uri(uri)
        return ArrowFSWrapper(files), path
    return fsspec.core.url_to_fs(uri)
