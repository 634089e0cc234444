"""A real `mlflow server` on loopback that can be killed and started again over the same database."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from sweeps.tracking.mlflow_view import CELL, SWEEP, TRIAL

PATIENCE = 180  # seconds


class Server:
    """Started at once; its address stays the same through every restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start it."""
        place = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--artifacts-destination"]
        command = [sys.executable, "-m", "mlflow", "server", *place, str(self.folder / "artifacts")]
        log = (self.folder / "log").open("a")
        self.process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"],
            stdout=log,
            stderr=log,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,
        )
        log.close()

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.3)

    def kill(self) -> None:
        """SIGKILL it with its workers."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def runs(self, experiment: str) -> list[Any]:
        """What it shows of an experiment."""
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self.uri)
        found = client.get_experiment_by_name(experiment)
        assert found is not None
        return list(client.search_runs([found.experiment_id]))


def assert_whole(runs: list[Any], sweeps: int, trials: int, cells: int) -> None:
    """One run for each sweep, each of its trials and each cell, all of them ended."""
    shown = Counter((run.data.tags[SWEEP], run.data.tags.get(TRIAL), run.data.tags.get(CELL)) for run in runs)
    assert set(shown.values()) == {1}
    assert len(shown) == sweeps * (1 + trials + cells)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all(run.data.params for run in runs if TRIAL in run.data.tags)
