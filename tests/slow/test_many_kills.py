"""Twenty SIGKILLs in a row, at random moments, of everything that can be killed: the end is the undisturbed one."""

import random
import subprocess
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from sweeps.ledger import read
from tests.slow.conftest import end, mpdit, mpdit_json, settled, start
from tests.slow.mlflow_server import Server, assert_whole

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SEED = 7  # of the order of kills; the moments also depend on the machine's speed
KILLS = {"driver": 7, "worker": 6, "raylet": 3, "server": 4}
SWEEP = """\
name: hunted
recipe: {steps: 60, batch: 16, runtime: {device: cpu}}
axes:
  model.modulation: [scale+shift+gate, rotation+gate]
  seed: [0, 1]
  ema.sigma_rel: [0.05, 0.1]
evaluation: {samples: 200, steps: 2}
search: {algorithm: grid}
"""
REPORT_EVERY = 3  # steps, of 60
GIVE_UP = 1800  # seconds


def lines(ledger: Path) -> int:
    return ledger.read_bytes().count(b"\n") if ledger.exists() else 0


def wait_for_more(ledger: Path, count: int, driver: subprocess.Popen[str]) -> None:
    """Until the ledger has grown by some lines, or the driver has ended."""
    before = lines(ledger)
    while lines(ledger) < before + count and driver.poll() is None:
        time.sleep(0.05)


def part_of(driver: int, name: str) -> psutil.Process | None:
    """A living part of the driver's Ray: its raylet, or one of the workers that run trials."""
    mark = {"raylet": "raylet", "worker": "ImplicitFunc"}[name]
    for process in psutil.Process(driver).children(recursive=True):
        found = process.name() if name == "raylet" else " ".join(process.cmdline())
        if mark in found:
            return process
    return None


def hunt(file: Path, storage: Path, ledger: Path, server: Server) -> tuple[Counter[str], list[list[Any]]]:
    """Kill one thing after another while the sweep is started again and again; what the ledger told at each kill."""
    chance = random.Random(SEED)
    victims = [name for name, count in KILLS.items() for _ in range(count)]
    chance.shuffle(victims)
    killed, told, driver = Counter[str](), list[list[Any]](), None
    deadline = time.monotonic() + GIVE_UP
    while victims and time.monotonic() < deadline:
        if driver is None or driver.poll() is not None:
            if driver is not None:
                assert driver.returncode in (0, 1), driver.communicate()[1]
                assert settled(driver.pid) == []
            driver = start("sweep", file, "--storage", storage)
        wait_for_more(ledger, chance.choice((1, 1, 2, 3)), driver)
        time.sleep(chance.random() * 0.3)
        if driver.poll() is not None:
            continue
        if victims[-1] == "server":
            server.kill()
            time.sleep(chance.random())
            server.start()
        elif victims[-1] == "driver":
            driver.kill()
            driver.communicate()
            assert settled(driver.pid) == []
            driver = None
        else:
            process = part_of(driver.pid, victims[-1])
            if process is None:
                continue
            process.kill()
            if victims[-1] == "raylet":
                _, err = driver.communicate(timeout=120)
                assert driver.returncode == 1
                assert "raylet on this machine has died" in err
                assert "Traceback" not in err
        killed[victims.pop()] += 1
        told.append(read(ledger) if ledger.exists() else [])
    if driver is not None and driver.poll() is None:
        end(driver, 15)
    return killed, told


def assert_little_is_redone(folder: Path, told: list[Any]) -> None:
    """Every start of a training goes on no further back than one checkpoint before what had been reported by then."""
    starts = [line for line in (folder / "log.txt").read_text().splitlines() if "from step" in line]
    for line in starts:
        began = datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").astimezone(UTC)
        reported = [e["step"] for e in told if e["event"] == "progress" and datetime.fromisoformat(e["time"]) < began]
        step = int(line.split("from step ")[1].split()[0])
        assert step >= max(reported, default=0) - REPORT_EVERY, line


def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "hunted.yaml"
    file.write_text(SWEEP)
    mpdit("sweep", file, "--storage", tmp_path / "undisturbed")
    undisturbed = mpdit_json("rank", "--storage", tmp_path / "undisturbed")

    server = Server(tmp_path / "server")
    try:
        file.write_text(SWEEP + f"tracking: {{uri: '{server.uri}'}}\n")
        storage = tmp_path / "runs"
        ledger = storage / "sweeps" / "hunted" / "ledger.jsonl"
        killed, told = hunt(file, storage, ledger, server)
        assert killed == KILLS
        mpdit("sweep", file, "--storage", storage)
        mpdit("sync", "--storage", storage)
        after = read(ledger)
        assert all(after[: len(before)] == before for before in told)  # nothing that was reported is lost
        assert mpdit_json("rank", "--storage", storage) == undisturbed
        assert_whole(server.runs("hunted"), trials=4, cells=8)
    finally:
        server.kill()

    once = Counter((line["trial"], line["step"]) for line in after if line["event"] == "progress")
    assert set(once.values()) == {1}
    for folder in (storage / "trials").iterdir():
        assert_little_is_redone(folder, [line for line in after if line["trial"] == folder.name])
    assert not [path for path in Path("/tmp").glob("mpdit-ray-*") if not psutil.pid_exists(int(path.name[10:]))]
