"""Whatever happens, a command ends with a message to a person and an exit code, and never with a traceback."""

import errno
import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mpdit
import pipelines
import sweeps
from cli import main as command_line
from cli.ending import exit_code_of
from mpdit.errors import DiskFull, InputError, MpditError
from pipelines.training.measurements import Diverged
from pipelines.training.out_of_memory import OutOfMemory
from sweeps.execution.cluster import RayLost
from sweeps.storage.lease import Busy
from tests.cli.conftest import Command

CODE = Path(__file__).resolve().parents[2]


def modules(package: ModuleType) -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.rpartition(".")[2].startswith("train_"):
            yield importlib.import_module(found.name)


def our_exceptions() -> set[type[BaseException]]:
    """Every exception class that the three layers define."""
    found = set()
    for package in (mpdit, pipelines, sweeps):
        for module in modules(package):
            for value in vars(module).values():
                if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == module.__name__:
                    found.add(value)
    return found


def made(kind: type[BaseException]) -> BaseException:
    """One of a kind, with its text, whatever it is made of."""
    problem = kind.__new__(kind)
    problem.args = ("what happened",)
    return problem


def test_every_exception_of_ours_is_its_message_and_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    public = {kind for kind in our_exceptions() if not kind.__name__.startswith("_")}
    assert {InputError, DiskFull, Busy, RayLost, Diverged, OutOfMemory} < public
    for kind in public:
        assert issubclass(kind, MpditError), f"{kind.__name__} has no exit code"
        assert exit_code_of(made(kind)) == kind.exit_code
        assert kind.exit_code in (0, 1, 2)
        assert capsys.readouterr() == ("", "what happened\n")


def test_each_has_the_exit_code_of_its_sort() -> None:
    kinds = {InputError: 2, Busy: 2, DiskFull: 1, OutOfMemory: 1, RayLost: 1, Diverged: 0}
    assert {kind: kind.exit_code for kind in kinds} == kinds


@pytest.mark.parametrize(
    ("problem", "code", "told"),
    [
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(7), 7, ""),
        (SystemExit(None), None, ""),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "no space is left"),
        (PermissionError(errno.EACCES, "Permission denied", "/there"), 2, "/there cannot be used"),
        (OSError(errno.EROFS, "Read-only file system", "/there"), 2, "Read-only file system"),
    ],
)
def test_python_s_own_exceptions(
    problem: BaseException, code: int | None, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(problem) == code
    assert told in capsys.readouterr().err


def test_notes_stand_behind_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    problem = Diverged(3, "the loss is nan")
    problem.add_note("the run is in there")
    assert exit_code_of(problem) == 0
    assert capsys.readouterr().err == "diverged by step 3: the loss is nan; the run is in there\n"


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A command that fails as nobody foresaw; the folder of the cache."""

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("of a\nkind")

    monkeypatch.setattr(command_line, "app", fail)
    monkeypatch.setenv("MPDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RAY_TOKEN", "a-secret-of-mine")
    return tmp_path / "cache"


def test_a_fault_is_one_line_and_a_file_with_its_traceback(mpdit: Command, faulty: Path) -> None:
    done = mpdit("rank", "a-secret-of-mine")
    report = next((faulty / "faults").iterdir())
    assert done.returncode == 70
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"a fault of mpdit (ZeroDivisionError: of a kind); a report of it, to read and send, is in {report}"
    ]
    text = report.read_text()
    assert "Traceback" in text
    assert "ZeroDivisionError" in text
    assert "torch==" in text
    assert "a-secret-of-mine" not in text


def test_where_no_report_can_be_written_the_traceback_is_printed(
    mpdit: Command, faulty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.bug_report._write", lambda *_: (_ for _ in ()).throw(OSError("full")))
    done = mpdit("rank")
    assert done.returncode == 70
    assert done.stderr.rstrip().endswith("ZeroDivisionError: of a\nkind")


@pytest.mark.parametrize("arguments", [["schema"], ["train", "--help"]])
def test_a_reader_who_goes_away_is_no_fault(arguments: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(CODE)}
    reading, writing = os.pipe()
    os.close(reading)  # as `| head -1`, sooner than it could
    command = [sys.executable, "-m", "cli.main", *arguments]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
