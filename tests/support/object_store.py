"""An object store on loopback that speaks S3: moto's server, in this process, with an empty bucket."""

from __future__ import annotations

import logging
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
"""What must stand in the environment of whoever asks it; any key will do."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """port: on 127.0.0.1. prefix: of this test alone, so that one server does for all."""

    port: int
    prefix: str = ""

    def uri(self, *names: str) -> str:
        place = "/".join([BUCKET, *filter(None, [self.prefix]), *names])
        return f"s3://{place}?endpoint_override=127.0.0.1:{self.port}&scheme=http"

    def store(self, *names: str) -> ObjectStore:
        return open_store(self.uri(*names))


@contextmanager
def s3_server() -> Iterator[Bucket]:
    """A server with one empty bucket, until the end of the block."""
    from moto.server import ThreadedMotoServer
    from pyarrow.fs import S3FileSystem

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        S3FileSystem(
            access_key=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            secret_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            endpoint_override=f"127.0.0.1:{port}",
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
        ).create_dir(BUCKET)
        yield Bucket(port)
    finally:
        server.stop()
