"""Errors that a person can correct, and how their messages read."""

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class InputError(ValueError):
    """Something that the user gave cannot be used. The text says what was given, what is allowed and what to do.

    Every layer may raise it. The command line prints it without a traceback and exits with 2.
    """


def nearest(given: object, allowed: Iterable[object]) -> str | None:
    """The allowed name that looks most like what was given, or None when none does."""
    matches = get_close_matches(str(given), [str(name) for name in allowed], n=1, cutoff=0.5)
    return matches[0] if matches else None


def input_error(headline: str, **facts: object) -> InputError:
    """A message to a person: one headline, then one aligned line for each known fact.

    `input_error("no sweep 'x'", given="x", nearest=None)` leaves the unknown fact out.
    """
    known = {name.replace("_", " ") + ":": value for name, value in facts.items() if value is not None}
    width = max((len(name) for name in known), default=0) + 2
    return InputError("\n".join([headline, *(f"  {name:<{width}}{value}" for name, value in known.items())]))


class DiskFull(InputError):
    """No space is left where a run or a sweep lies."""


def disk_is_full(problem: BaseException) -> bool:
    """Whether a write failed for want of space (safetensors tells it in words)."""
    full = (errno.ENOSPC, errno.EDQUOT)
    told = "No space left" in str(problem) or "os error 28" in str(problem)
    return isinstance(problem, DiskFull) or getattr(problem, "errno", None) in full or told


def no_space(folder: Path) -> DiskFull:
    """What a person is told about a full disk."""
    text = input_error(
        f"no space is left in {folder}",
        lost="nothing that was reported; nothing is half-written",
        hint="make space (mpdit clean shows what can go), then run the same command again: it continues",
    )
    return DiskFull(str(text))
