"""How a command ends: every exception becomes a message to a person and an exit code."""

import errno
import os
import select
import sys
import traceback
from pathlib import Path

from mpdit.errors import MpditError, disk_is_full

FAILED, INPUT_ERROR, UNFORESEEN, INTERRUPTED, READER_GONE = 1, 2, 70, 130, 141
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)


def exit_code_of(problem: BaseException) -> int | str | None:
    """Tell the user how the command ended, and return its exit code; a code of Python's own is passed on."""
    if isinstance(problem, SystemExit) and isinstance(problem.__context__, BrokenPipeError):
        problem = problem.__context__  # Typer ends it without a word
    if isinstance(problem, BrokenPipeError) and not _is_read():
        _print_nowhere()
        return READER_GONE
    match problem:
        case SystemExit():
            return problem.code
        case KeyboardInterrupt():
            return INTERRUPTED
        case MpditError():
            _tell("; ".join([str(problem), *getattr(problem, "__notes__", [])]))
            return problem.exit_code
        case OSError() if disk_is_full(problem):
            _tell(f"no space is left on the disk: {problem}")
            return FAILED
        case OSError() if problem.errno in NOT_ALLOWED and problem.filename is not None:
            _tell(f"{problem.filename} cannot be used\n  reason:  {problem.strerror}")
            return INPUT_ERROR
    _tell_unforeseen(problem)
    return UNFORESEEN


def flushed(code: int | str | None) -> int | str | None:
    """Write out what is printed, so that a reader who has gone (`mpdit rank | head -1`) changes the code in silence."""
    try:
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None:
                stream.flush()
    except BrokenPipeError:
        _print_nowhere()
        return READER_GONE
    return code


def _is_read() -> bool:
    """Whether somebody is still at the other end of what is printed; Rich, when nobody is, sends it nowhere."""
    if os.fstat(1).st_rdev == Path(os.devnull).stat().st_rdev:
        return False
    ends = select.poll()
    ends.register(1, 0)
    ends.register(2, 0)
    return not any(event & select.POLLERR for _, event in ends.poll(0))


def _print_nowhere() -> None:
    """Let what Python still writes when it ends go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _tell_unforeseen(problem: BaseException) -> None:
    """Print one line, and keep the rest in a file; where no file can be written, print all of it."""
    try:
        from sweeps.bug_report import report_error

        path = report_error(problem, sys.argv[1:])
    except Exception:  # whatever is broken: the first problem is told
        _tell("".join(traceback.format_exception(problem)))
        return
    what = " ".join(f"{type(problem).__name__}: {problem}".split())
    _tell(f"a fault of mpdit ({what[:200]}); a report of it, to read and send, is in {path}")
