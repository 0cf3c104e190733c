"""AWS for tests, on loopback: moto's server answers for EC2, CloudFormation, IAM and S3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

REGION = "us-east-1"
KEY_ID, KEY = "test-key-id", "test-key"


@contextmanager
def aws_server() -> Iterator[str]:
    """The address of a moto server of this process, on a free port; its account is empty, and ends with the block."""
    import requests
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        # What an earlier server of this process was told is kept in the process.
        requests.post(f"{address}/moto-api/reset", timeout=30)
        yield address
    finally:
        server.stop()


def environment(address: str) -> dict[str, str]:
    """What AWS's clients read: where to ask, as whom, and no files of the user's."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
