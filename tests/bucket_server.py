"""A real server of the S3 protocol on loopback (moto's), in this process, and a bucket of one's own on it."""

import itertools
import os
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from sweeps.storage.layout import Storage
from sweeps.storage.open_storage import open_storage

numbers = itertools.count()


class Server:
    """Where it answers; `stop` and `start` keep the address, and what was kept there."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        from moto.server import ThreadedMotoServer

        self.thread = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self.thread.start()
        self.port = int(self.thread.get_host_and_port()[1])

    def stop(self) -> None:
        self.thread.stop()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def make(self, bucket: str) -> None:
        """An empty bucket of that name."""
        urllib.request.urlopen(urllib.request.Request(f"{self.uri}/{bucket}", method="PUT")).close()

    def enter(self, patch: pytest.MonkeyPatch) -> None:
        """Set what it takes to get into a bucket of this server in the environment."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", self.uri)
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def age(self, bucket: str, name: str, seconds: float) -> None:
        """Have an object been written so many seconds earlier."""
        from moto.s3.models import s3_backends

        (kept,) = (
            backend["aws"].buckets[bucket] for backend in s3_backends.values() if bucket in backend["aws"].buckets
        )
        kept.keys[name].last_modified -= timedelta(seconds=seconds)

    def check_credentials(self, after: float) -> None:
        """Let in only whom it knows, from so many requests on."""
        content = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.uri}/moto-api/reset-auth", str(after).encode(), content)
        urllib.request.urlopen(request).close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def bucket_url(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket, with what it takes to get into it in the environment."""
    s3_server.enter(monkeypatch)
    name = f"bucket-{next(numbers)}"
    s3_server.make(name)
    return f"s3://{name}/runs"


def elsewhere(storage: Storage, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Storage:
    """The same storage on a machine that has no copy of it yet."""
    monkeypatch.setenv("MPDIT_CACHE", str(cache))
    return open_storage(storage.name)
