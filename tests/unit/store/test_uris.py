"""What a storage may be, and that a URI keeps its options behind and its secrets out."""

from __future__ import annotations

import pytest

from pharos.errors import StorageError
from pharos.store.uris import checked_storage, is_store, joined, parent_and_name, without_options

OPTIONS = "?endpoint_override=127.0.0.1:9000&scheme=http"


@pytest.mark.parametrize(
    ("written", "checked"),
    [
        ("pharos-results", "pharos-results"),
        ("/mnt/shared", "/mnt/shared"),
        ("C:odd", "C:odd"),
        ("file:///mnt/shared%20space", "/mnt/shared space"),
        ("file://localhost/mnt", "/mnt"),
        ("s3://bucket", "s3://bucket"),
        ("S3://bucket//team/", "s3://bucket/team"),
        (f"s3://bucket/team/{OPTIONS}", f"s3://bucket/team{OPTIONS}"),
        ("gs://anonymous@bucket/x", "gs://anonymous@bucket/x"),
    ],
)
def test_a_storage_has_one_spelling(written: str, checked: str) -> None:
    assert checked_storage(written) == checked
    assert checked_storage(checked) == checked


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("hdfs://host/x", "hdfs:// is no kind of storage"),
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("file://elsewhere/x", "names no file of this machine"),
        ("s3://bucket/../x", r"\. and \.\. mean nothing"),
        ("s3://bucket/x?secret_key=abc", "secret_key is no option of a storage"),
        ("gs://bucket/x?region=eu", "region is no option"),
    ],
)
def test_what_is_no_storage_is_refused_with_the_reason(written: str, reason: str) -> None:
    with pytest.raises(StorageError, match=reason):
        checked_storage(written)


@pytest.mark.parametrize("written", ["s3://KEY:SECRET@bucket/x", "s3://KEY@bucket/x", "gs://KEY:SECRET@bucket/x"])
def test_credentials_in_a_storage_are_refused_and_not_repeated(written: str) -> None:
    with pytest.raises(StorageError, match="AWS_ACCESS_KEY_ID") as caught:
        checked_storage(written)
    assert "KEY:" not in caught.value.message.replace("AWS_ACCESS_KEY_ID", "")
    assert "SECRET@" not in caught.value.message
    assert "***@bucket" in caught.value.message


def test_names_go_in_front_of_the_options() -> None:
    uri = joined(f"s3://bucket/team{OPTIONS}", "a", "b")
    assert uri == f"s3://bucket/team/a/b{OPTIONS}"
    assert parent_and_name(uri) == (f"s3://bucket/team/a{OPTIONS}", "b")
    assert without_options(uri) == "s3://bucket/team/a/b"
    assert is_store(uri)
    assert not is_store("pharos-results")
    assert not is_store("s3:/bucket")
