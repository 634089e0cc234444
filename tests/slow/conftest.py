"""Whole processes: `mpdit` as a person starts it, and what it leaves behind; and what is made once for many tests.

Two processes run these tests side by side (`make test-slow`). Tests of what must be alive while it is used, or is
changed, are of one `xdist_group`, which one process runs. What is only read is made by the first that asks for it.
"""

import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli.main import main
from tests.bucket_server import bucket_url, s3_server
from tests.slow.ray_cluster import cluster, nodes

CODE = Path(__file__).resolve().parents[2]
PATIENCE = 420  # seconds after which a process is taken to hang
SWEEP = """\
name: NAME
recipe: {model: {width: 16}, optimizer: {lr: 0.02}, steps: STEPS, batch: 16, runtime: {device: cpu}}
axes:
  model.modulation: [scale+shift+gate, scale+rotation+gate, rotation+gate]
  ema.sigma_rel: [0.05, 0.1]
evaluation: {samples: 100, steps: 2}
"""
TRIALS, CELLS = 3, 3 * 2 + 3  # of that sweep: the best three are scored again on fresh noise
SHORT, LONG = 100, 400  # steps: to be killed in; long enough for commands from another terminal
SMALLER = {
    "steps: 300": "steps: 90\n  batch: 32",
    "warmup: 9, decay_from: 120": "warmup: 3, decay_from: 36",
    "2000": "500",
}

STARTED: list[subprocess.Popen[str]] = []

fixtures = (bucket_url, cluster, nodes, s3_server)


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """What a failed test leaves running must not slow down those that follow."""
    yield
    for process in STARTED:
        if process.poll() is None:
            process.kill()
            process.communicate()
    STARTED.clear()


def start(*arguments: str | Path, cwd: Path | None = None, inside: Sequence[str] = ()) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(CODE), "COLUMNS": "120"}
    environment.pop("MPDIT_STORAGE", None)
    command = [*inside, sys.executable, "-m", "cli.main", *map(str, arguments)]
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


@dataclass(frozen=True)
class Told:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


def mpdit(*arguments: str | Path, cwd: Path | None = None, expect: int = 0, patience: int = PATIENCE) -> str:
    """What a command prints, run to its end in this process, which has imported everything."""
    told = run_here(*arguments, cwd=cwd, patience=patience)
    assert told.code == expect, f"{arguments}: exit {told.code}\n{told.out}\n{told.err}"
    assert "Traceback" not in told.err, told.err
    return told.out


def mpdit_json(*arguments: str | Path, cwd: Path | None = None) -> Any:
    """The document that a command prints."""
    return json.loads(mpdit(*arguments, "--json", cwd=cwd))


def refused(*arguments: str | Path, cwd: Path | None = None) -> str:
    """What a command tells that is refused as bad input."""
    told = run_here(*arguments, cwd=cwd)
    assert told.code == 2, (told.out, told.err)
    assert "Traceback" not in told.err
    return told.err


def run_here(*arguments: str | Path, cwd: Path | None = None, patience: int = PATIENCE) -> Told:
    """Run a command in this process; it fails when it takes longer than `patience`, in seconds."""
    printed, told, code = io.StringIO(), io.StringIO(), 0

    def too_long(*_: object) -> None:
        raise AssertionError(f"{arguments} took more than {patience} s\n{printed.getvalue()}\n{told.getvalue()}")

    handled = signal.SIGTERM, signal.SIGINT, signal.SIGALRM
    before = [signal.getsignal(number) for number in handled]
    with (
        pytest.MonkeyPatch.context() as patch,
        chdir(cwd or Path.cwd()),
        redirect_stdout(printed),
        redirect_stderr(told),
    ):
        patch.setattr(sys, "argv", ["mpdit", *map(str, arguments)])
        patch.setenv("COLUMNS", "120")
        patch.delenv("MPDIT_STORAGE", raising=False)
        signal.signal(signal.SIGALRM, too_long)
        signal.alarm(patience)
        try:
            main()
        except SystemExit as done:
            code = int(done.code or 0)
        finally:
            signal.alarm(0)
            for number, handler in zip(handled, before, strict=True):
                signal.signal(number, handler)
    return Told(code, printed.getvalue(), told.getvalue())


def sweep_text(name: str, steps: int = SHORT) -> str:
    """The sweep that most tests share: three trainings of a small network reported at steps 1, 2, 4, …, two widths."""
    return SWEEP.replace("NAME", name).replace("STEPS", str(steps))


def count_of(ledger: Path, kind: str, trial: str = "") -> int:
    """How many events of a kind the ledger holds, of one trial if it is named."""
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return sum(f'"event": "{kind}"' in line and trial in line for line in lines)


def wait_for(ledger: Path, kind: str, count: int, process: subprocess.Popen[str], trial: str = "") -> None:
    """Until the ledger tells of `count` events of a kind (of one trial); fails when the process ends first."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if count_of(ledger, kind, trial) >= count:
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
def undisturbed(common_folder: Path) -> Callable[..., Any]:
    """The ranking of the shared sweep of so many steps that nothing disturbs; run once for all tests."""

    def ranking(steps: int = SHORT) -> Any:
        folder = common_folder / f"undisturbed-{steps}"
        folder.mkdir(exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            result = folder / "rank.json"
            if not result.exists():
                (folder / "sweep.yaml").write_text(sweep_text("undisturbed", steps))
                process = start("sweep", "sweep.yaml", "--max-concurrent", "1", cwd=folder)  # a process may hold nodes
                _, err = process.communicate(timeout=PATIENCE)
                assert process.returncode == 0, err
                result.write_text(mpdit("rank", "--json", cwd=folder))
            return json.loads(result.read_text())

    return ranking


@pytest.fixture(scope="session")
def whole_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped sweep, all of it smaller, run to its end in a storage of its own; its file is `conditioning`."""
    folder = tmp_path_factory.mktemp("whole")
    text = (CODE / "sweeps" / "conditioning.yaml").read_text()
    for whole, smaller in SMALLER.items():
        assert text.count(whole) == 1, whole
        text = text.replace(whole, smaller)
    (folder / "conditioning").write_text(text)
    mpdit("sweep", "conditioning", cwd=folder)
    return folder
