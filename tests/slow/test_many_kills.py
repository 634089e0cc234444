"""Many SIGKILLs in a row, at random moments, of everything that can be killed: the end is the undisturbed one.

What it adds to test_kills.py: twenty kills, moments that nobody chose, several workers lost in one life, and a tracking
server that is killed and started again while the sweep runs.
"""

import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from sweeps.execution.cluster import dead_folders
from sweeps.storage.events import Progress
from sweeps.storage.ledger import read
from tests.slow.conftest import PATIENCE, end, mpdit, mpdit_json, settled, start
from tests.slow.mlflow_server import Server, assert_whole
from tests.slow.test_kills import assert_little_is_redone, kill_raylet, part_of

pytestmark = [pytest.mark.soak, pytest.mark.filterwarnings("ignore")]

SEED = 7  # of the order of kills; the moments also depend on the machine's speed
KILLS = {"driver": 7, "worker": 6, "raylet": 3, "server": 4}
SWEEP = """\
name: hunted
recipe: {optimizer: {lr: 0.02}, steps: 300, batch: 64, runtime: {device: cpu}}
axes:
  model.modulation: [scale+shift+gate, rotation+gate]
  seed: [0, 1]
  ema.sigma_rel: [0.05, 0.1]
evaluation: {samples: 200, steps: 2}
search: {algorithm: grid}
"""


def lines(ledger: Path) -> int:
    return ledger.read_bytes().count(b"\n") if ledger.exists() else 0


def wait_for_more(ledger: Path, count: int, driver: subprocess.Popen[str]) -> None:
    """Until the ledger has grown by some lines, or the driver has ended."""
    before = lines(ledger)
    while lines(ledger) < before + count and driver.poll() is None:
        time.sleep(0.05)


def hunt(victims: list[str], chance: random.Random, sweep: list[Any], ledger: Path, server: Server) -> list[list[Any]]:
    """Kill one victim after another until none is left or the sweep has ended; what the ledger told at each kill."""
    told, driver = list[list[Any]](), start(*sweep)
    while victims:
        wait_for_more(ledger, chance.choice((1, 1, 2, 3)), driver)
        time.sleep(chance.random() * 0.3)
        if driver.poll() is not None:
            assert driver.returncode in (0, 1), driver.communicate()[1]  # 1: a trial lost three workers in one life
            assert settled(driver.pid) == []
            if driver.returncode == 0:
                return told
            driver = start(*sweep)
        elif kill(victims[-1], driver, server):
            victims.pop()
            told.append(read(ledger) if ledger.exists() else [])
            if driver.poll() is not None:
                assert settled(driver.pid) == []
                driver = start(*sweep)
    end(driver, signal.SIGTERM)
    assert settled(driver.pid) == []
    return told


def kill(victim: str, driver: subprocess.Popen[str], server: Server) -> bool:
    """Kill it, if it is there; a server is started again at once."""
    if victim == "server":
        server.kill()
        server.launch()
        return True
    if victim == "raylet" and part_of(driver.pid, victim):
        kill_raylet(driver)
        return True
    return kill_part(victim, driver)


def test_kills_change_nothing(tmp_path: Path) -> None:
    """Adds to CI: twenty kills at moments that chance chooses, of drivers, workers, raylets and the tracking server."""
    file = tmp_path / "hunted.yaml"
    file.write_text(SWEEP)
    mpdit("sweep", file, "--storage", tmp_path / "undisturbed")
    undisturbed = mpdit_json("rank", "--storage", tmp_path / "undisturbed")

    chance = random.Random(SEED)
    victims = [name for name, count in KILLS.items() for _ in range(count)]
    chance.shuffle(victims)
    server, rounds = Server(tmp_path / "server"), 0
    file.write_text(SWEEP + f"tracking: {{uri: '{server.uri}'}}\n")
    try:
        while victims:  # a sweep that ends before all are killed is followed by another, in a storage of its own
            rounds += 1
            storage = tmp_path / f"runs-{rounds}"
            ledger = storage / "sweeps" / "hunted" / "ledger.jsonl"
            told = hunt(victims, chance, ["sweep", file, "--storage", storage], ledger, server)
            server.wait()
            mpdit("sweep", file, "--storage", storage)
            mpdit("sync", "--storage", storage)
            after = read(ledger)
            assert all(after[: len(before)] == before for before in told)  # nothing that was reported is lost
            assert mpdit_json("rank", "--storage", storage) == undisturbed
            once = Counter((line.trial, line.step) for line in after if isinstance(line, Progress))
            assert set(once.values()) == {1}
            for folder in (storage / "trials").iterdir():
                assert_little_is_redone(folder, [line for line in after if line.trial == folder.name])
        assert_whole(server.runs("hunted"), rounds, trials=4, cells=4 * 2 + 3 * 2)  # the best three on fresh noise
    finally:
        server.kill()
    assert not dead_folders()


SHARED = """\
name: NAME
recipe: {model: {width: 16}, optimizer: {lr: 0.02}, steps: 200, batch: 16, runtime: {device: cpu}}
axes:
  model.modulation: [scale+shift+gate, rotation+gate]
  seed: SEEDS
  ema.sigma_rel: [0.1]
evaluation: {samples: 100, steps: 2}
"""
TWO = {"first": "[0, 1]", "second": "[1, 2]"}  # two trials are of both
KILLS_OF_TWO = {"driver": 6, "worker": 6}


def test_kills_of_two_sweeps_that_share_trials_change_nothing(tmp_path: Path) -> None:
    """Adds to CI: twelve kills of the drivers and workers of two sweeps that run at once in one storage."""
    files = {name: tmp_path / f"{name}.yaml" for name in TWO}
    for name, file in files.items():
        file.write_text(SHARED.replace("NAME", name).replace("SEEDS", TWO[name]))
        mpdit("sweep", file, "--storage", tmp_path / f"undisturbed-{name}")
    storage, chance = tmp_path / "runs", random.Random(SEED)
    victims = [victim for victim, count in KILLS_OF_TWO.items() for _ in range(count)]
    chance.shuffle(victims)
    command = {name: ("sweep", file, "--storage", storage) for name, file in files.items()}
    drivers = {name: start(*command[name]) for name in TWO}
    ledgers = {name: storage / "sweeps" / name / "ledger.jsonl" for name in TWO}
    while victims and any(driver.poll() is None for driver in drivers.values()):
        name = chance.choice([name for name, driver in drivers.items() if driver.poll() is None])
        wait_for_more(ledgers[name], chance.choice((1, 2, 3)), drivers[name])
        told = read(ledgers[name])
        if drivers[name].poll() is None and kill_part(victims[-1], drivers[name]):
            victims.pop()
        if drivers[name].poll() not in (None, 0):
            assert settled(drivers[name].pid) == []
            assert read(ledgers[name])[: len(told)] == told  # nothing that was reported is lost
            drivers[name] = start(*command[name])
    for name, driver in drivers.items():
        driver.communicate(timeout=PATIENCE)
        mpdit(*command[name])
        assert measured(storage, name) == measured(tmp_path / f"undisturbed-{name}", name)
        once = Counter((line.trial, line.step) for line in read(ledgers[name]) if isinstance(line, Progress))
        assert set(once.values()) == {1}


def measured(storage: Path, name: str) -> list[dict[str, Any]]:
    """The ranking without what other sweeps of the storage tell, the spread between training seeds."""
    columns = ("trial", "params", "status", "value", "stderr", "confirmed")
    return [{column: row.get(column) for column in columns} for row in mpdit_json("rank", name, "--storage", storage)]


def kill_part(victim: str, driver: subprocess.Popen[str]) -> bool:
    """Kill a driver or one of its workers, if it is there."""
    process = psutil.Process(driver.pid) if victim == "driver" else part_of(driver.pid, victim)
    if process is None:
        return False
    process.kill()
    if victim == "driver":
        driver.communicate()
    return True
