"""MLflow's own pages over a storage, served on loopback."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpdit.errors import input_error
from sweeps.storage.layout import Storage
from sweeps.tracking.mlflow_view import quiet, tracking_uri

HOST = "127.0.0.1"
LOG = "mlflow-ui.log"


@contextmanager
def served(storage: Storage, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's server: answering when this opens, ended when it closes.

    Its output goes to `mlflow-ui.log` in the storage, or among temporary files where that can only be read. Raises
    InputError when there is nothing to show, when the port is taken, or when it does not start.
    """
    if not storage.database.exists():
        hint = f"mpdit sweep conditioning --storage {storage.root}"
        raise input_error(f"there is nothing to show in {storage.root}", hint=hint)
    _check_free(port)
    writable = os.access(storage.root, os.W_OK)
    path = storage.root / LOG if writable else Path(tempfile.gettempdir()) / f"{os.getpid()}-{LOG}"
    with path.open("wb") as words:
        # a session of its own: Ctrl-C reaches us alone, and we end it in one piece
        server = subprocess.Popen(
            _command(storage, port), stdout=words, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        while not _answers(port):
            if server.poll() is not None:
                last = path.read_text(errors="replace").strip().splitlines()[-1:]
                raise input_error("MLflow did not start", reason=" ".join(last), log=path)
            time.sleep(0.3)
        yield server
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def _command(storage: Storage, port: int) -> list[str]:
    quiet()
    store = ["--backend-store-uri", tracking_uri(storage, None)]
    artifacts = ["--default-artifact-root", storage.artifacts.as_uri()]
    place = ["--host", HOST, "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "server", *store, *artifacts, *place]


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise input_error(f"port {port} cannot be used", reason=error.strerror, hint="--port N") from None


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2).close()
    except OSError:
        return False
    return True
