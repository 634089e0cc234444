"""A disk that fills up while a sweep runs, and is cleared: a small one of its own, in a namespace of its own."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slow.conftest import PATIENCE, start, sweep_text, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ROOM = "60m"


class SmallDisk:
    """A disk that only processes started through `inside` see under `place`; this process sees it as `seen`."""

    def __init__(self, place: Path) -> None:
        place.mkdir()
        mount = f"mount -t tmpfs -o size={ROOM} tmpfs {place} && echo ready && exec sleep 3600"
        self.process = subprocess.Popen(["unshare", "-rm", "sh", "-c", mount], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.is_ready = self.process.stdout.readline() == "ready\n"
        self.place, self.seen = place, Path(f"/proc/{self.process.pid}/root{place}")

    @property
    def inside(self) -> list[str]:
        """What a command begins with that is to see the disk."""
        return ["nsenter", "--target", str(self.process.pid), "--user", "--mount", "--preserve-credentials"]

    def fill(self) -> None:
        """Leave no byte of room."""
        handle = os.open(self.seen / "filling", os.O_CREAT | os.O_WRONLY)
        try:
            while True:
                os.write(handle, bytes(4096))
        except OSError:
            os.close(handle)

    def clear(self) -> None:
        """Give the room back."""
        (self.seen / "filling").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if not shutil.which("unshare") or not shutil.which("nsenter"):
        pytest.skip("no unshare and nsenter here")
    made = SmallDisk(tmp_path / "disk")
    if not made.is_ready:
        pytest.skip("this machine lets nobody mount a disk of their own")
    yield made
    made.process.kill()
    made.process.communicate()


@pytest.mark.parametrize("event", [pytest.param("sweep_started", marks=pytest.mark.soak), "progress"])
def test_a_disk_that_fills_up_ends_the_sweep_with_a_message_and_costs_nothing(
    event: str, disk: SmallDisk, tmp_path: Path, undisturbed: Callable[..., Any]
) -> None:
    """Adds to CI: a disk that is full while MLflow's database is made; CI fills it while that is written."""
    (tmp_path / "full.yaml").write_text(sweep_text("full"))
    command = ("sweep", tmp_path / "full.yaml", "--storage", disk.place)
    driver = start(*command, inside=disk.inside)
    wait_for(disk.seen / "sweeps/full/ledger.jsonl", event, 1, driver)
    disk.fill()
    _, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 1, err
    assert "no space is left in" in err
    assert "Traceback" not in err
    assert "MLflow does not show everything: " in err
    syncing = start("sync", "full", "--storage", disk.place, inside=disk.inside)
    _, err = syncing.communicate(timeout=PATIENCE)
    assert syncing.returncode == 1, err
    assert "Traceback" not in err
    assert "no space is left in" in err
    disk.clear()
    driver = start(*command, inside=disk.inside)
    _, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, err
    ranking, _ = start("rank", "full", "--json", "--storage", disk.place, inside=disk.inside).communicate(
        timeout=PATIENCE
    )
    assert json.loads(ranking) == undisturbed()
