"""Whole processes: `mpdit` as a person starts it, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

CODE = Path(__file__).resolve().parents[2]
PATIENCE = 420  # seconds after which a process is taken to hang

STARTED: list[subprocess.Popen[str]] = []

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """What a failed test leaves running must not slow down those that follow."""
    yield
    for process in STARTED:
        if process.poll() is None:
            process.kill()
            process.communicate()
    STARTED.clear()


def start(*arguments: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(CODE), "COLUMNS": "120"}
    environment.pop("MPDIT_STORAGE", None)
    command = [sys.executable, "-m", "cli.main", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # as a terminal does, whatever started the tests
    )
    STARTED.append(process)
    return process


def mpdit(*arguments: str | Path, cwd: Path | None = None, expect: int = 0, patience: float = PATIENCE) -> str:
    process = start(*arguments, cwd=cwd)
    out, err = process.communicate(timeout=patience)
    assert process.returncode == expect, f"{arguments}: exit {process.returncode}\n{out}\n{err}"
    assert "Traceback" not in err, err
    return out


def mpdit_json(*arguments: str | Path, cwd: Path | None = None) -> Any:
    return json.loads(mpdit(*arguments, "--json", cwd=cwd))


def ranking_of(text: str, folder: Path, *settings: str) -> Any:
    """The ranking of a sweep that nothing disturbs, from a storage of its own in an empty folder."""
    (folder / "sweep.yaml").write_text(text)
    mpdit("sweep", "sweep.yaml", *settings, cwd=folder)
    return mpdit_json("rank", cwd=folder)


def wait_for(ledger: Path, kind: str, count: int, process: subprocess.Popen[str]) -> None:
    """Until the ledger tells of `count` events of a kind; fails when the process ends first."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if ledger.exists() and ledger.read_text().count(f'"event": "{kind}"') >= count:
            return
        if process.poll() is not None:
            raise AssertionError(f"ended before {count} × {kind}: {process.communicate()}")
        time.sleep(0.05)
    raise AssertionError(f"no {count} × {kind} in {PATIENCE} s")


def end(process: subprocess.Popen[str], how: signal.Signals) -> int:
    process.send_signal(how)
    process.communicate(timeout=PATIENCE)
    return process.returncode


def ours(driver: int) -> list[str]:
    """Living processes of a driver's Ray: their command lines name its folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if f"mpdit-ray-{driver}" in line and process.status() != psutil.STATUS_ZOMBIE:
            found.append(line[:200])
    return found


def settled(driver: int) -> list[str]:
    """The processes that a driver left behind, after the time that they get to go."""
    deadline = time.monotonic() + 60
    while ours(driver) and time.monotonic() < deadline:
        time.sleep(0.5)
    return ours(driver)


@pytest.fixture(scope="session")
def whole_sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The shipped sweep, run to its end in a storage of its own. Takes minutes."""
    folder = tmp_path_factory.mktemp("whole")
    mpdit("sweep", "conditioning", "--storage", folder / "runs", cwd=folder, patience=2 * PATIENCE)
    yield folder
