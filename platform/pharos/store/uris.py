"""What may stand in the place of a directory: a path, file:///path, or the URI of an object store. Pure."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from pharos.errors import StorageError

SCHEMES = ("s3", "gs", "gcs")
"""Object stores whose URIs a storage may be. What is mounted as a file system is a path."""
OPTIONS = {
    "s3": ("endpoint_override", "scheme", "region"),
    "gs": ("endpoint_override", "scheme"),
}
"""What may follow the `?` of a URI, for stores that are not the cloud's own."""


def is_store(storage: str) -> bool:
    """Whether a storage is the URI of an object store, so that it is no path."""
    return storage.partition("://")[0].lower() in SCHEMES and "://" in storage


def checked_storage(storage: str) -> str:
    """The storage in one spelling: an absolute or relative path, or a URI without a slash at its end.

    Raises StorageError for what is neither, and for credentials in it: a storage is written to logs and to MLflow.
    """
    scheme, separator, _ = storage.partition("://")
    scheme = scheme.lower()
    if not separator or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        return storage
    parts = urlsplit(storage)
    if scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise StorageError(f"storage={storage} names no file of this machine. Write file:///path, or the path.")
        return unquote(parts.path)
    if scheme not in SCHEMES:
        raise StorageError(
            f"storage={without_secrets(storage)}: {scheme}:// is no kind of storage that is known. Write a path, "
            "s3://bucket/prefix or gs://bucket/prefix; what else there is can be mounted, and is a path then."
        )
    shown = without_secrets(storage)
    if parts.password is not None or (parts.username is not None and scheme == "s3"):
        raise StorageError(
            f"storage={shown}: credentials do not belong in a storage, which is written to logs. Take them out, and "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment of every node, or give its machines "
            "a role."
        )
    if not parts.netloc:
        raise StorageError(f"storage={shown} names no bucket. Write {scheme}://bucket/prefix.")
    known = OPTIONS["s3" if scheme == "s3" else "gs"]
    for option in filter(None, parts.query.split("&")):
        if option.partition("=")[0] not in known:
            raise StorageError(
                f"storage={shown}: {option.partition('=')[0]} is no option of a storage. There are: {', '.join(known)}."
            )
    path = "/".join(part for part in parts.path.split("/") if part)
    if any(part in (".", "..") for part in path.split("/")):
        raise StorageError(f"storage={shown}: . and .. mean nothing at an object store. Write the prefix itself.")
    query = f"?{parts.query}" if parts.query else ""
    return f"{scheme}://{parts.netloc}{f'/{path}' if path else ''}{query}"


def without_secrets(uri: str) -> str:
    """What may be shown of a URI: a user and a password in it become stars."""
    return re.sub(r"://[^/@?]*@", "://***@", uri)


def joined(uri: str, *names: str) -> str:
    """A name below a URI; its options stay behind it."""
    place, mark, options = uri.partition("?")
    return "/".join([place, *names]) + mark + options


def without_options(uri: str) -> str:
    """What a URI is called where it is only named: `s3://bucket/prefix`."""
    return uri.partition("?")[0]


def parent_and_name(uri: str) -> tuple[str, str]:
    """The URI of the folder around, and the last name."""
    place, mark, options = uri.partition("?")
    parent, _, name = place.rpartition("/")
    return parent + mark + options, name
