"""The command line, run in this process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.main import main


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]


@pytest.fixture
def mpdit(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """The command line, in this process: what it prints and how it ends."""
    monkeypatch.delenv("MPDIT_STORAGE", raising=False)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str | Path, cwd: Path | None = None) -> Done:
        if cwd:
            monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["mpdit", *map(str, arguments)])
        capfd.readouterr()
        code: int | str | None = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        out, err = capfd.readouterr()
        return Done(int(code or 0), out, err)

    return run


@pytest.fixture
def refused(mpdit: Command) -> Callable[..., str]:
    """The message of a command that must be refused."""

    def run(*arguments: str | Path, cwd: Path | None = None) -> str:
        done = mpdit(*arguments, cwd=cwd)
        assert done.returncode == 2, done
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        return done.stderr

    return run


Refused = Callable[..., str]
