"""An object store on loopback that speaks S3: moto's server, in this process, with an empty bucket."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pharos.store.objects import ObjectStore, open_store

BUCKET = "sweeps"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "of-the-tests",
    "AWS_SECRET_ACCESS_KEY": "known-to-all",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True, slots=True)
class Bucket:
    """port: on 127.0.0.1. environment: what a process needs to reach it."""

    port: int

    @property
    def environment(self) -> dict[str, str]:
        return CREDENTIALS | {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}

    @property
    def options(self) -> str:
        return f"endpoint_override=127.0.0.1:{self.port}&scheme=http"

    def uri(self, prefix: str) -> str:
        return f"s3://{BUCKET}/{prefix}?{self.options}"

    def store(self, prefix: str = "") -> ObjectStore:
        return open_store(self.uri(prefix) if prefix else f"s3://{BUCKET}?{self.options}")


@contextmanager
def bucket() -> Iterator[Bucket]:
    """A server with one empty bucket, until the end of the block. The credentials stand in this process's environment."""
    from moto.server import ThreadedMotoServer
    from pyarrow.fs import S3FileSystem

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    made = Bucket(port)
    before = {name: os.environ.get(name) for name in made.environment}
    os.environ.update(made.environment)
    try:
        S3FileSystem(
            endpoint_override=f"127.0.0.1:{port}", scheme="http", region="us-east-1", allow_bucket_creation=True
        ).create_dir(BUCKET)
        yield made
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        server.stop()
