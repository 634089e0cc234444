"""Errors that a person can correct, and the form of their messages."""

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class MpditError(Exception):
    """What a person is to be told. Every layer may raise it; the command line prints its text and ends with its code.

    exit_code: 0 where it is an outcome, 1 where something failed, 2 where what was given cannot be used.
    """

    exit_code = 1


class InputError(MpditError, ValueError):
    """Something that the user gave cannot be used. The text says what was given, what is allowed and what to do."""

    exit_code = 2


def nearest(given: object, allowed: Iterable[object]) -> str | None:
    """Return the allowed name that is most like the given one, or None when none is."""
    matches = get_close_matches(str(given), [str(name) for name in allowed], n=1, cutoff=0.5)
    return matches[0] if matches else None


def input_error(headline: str, **facts: object) -> InputError:
    """Make a message to a person: one headline, then one aligned line for each known fact.

    `input_error("no sweep 'x'", given="x", nearest=None)` leaves the unknown fact out.
    """
    known = {name.replace("_", " ") + ":": value for name, value in facts.items() if value is not None}
    width = max((len(name) for name in known), default=0) + 2
    return InputError("\n".join([headline, *(f"  {name:<{width}}{value}" for name, value in known.items())]))


class DiskFull(InputError):
    """No space is left on the disk of a run or a sweep."""

    exit_code = 1


def disk_is_full(error: BaseException) -> bool:
    """Whether a write failed because the disk is full; safetensors and SQLite say so in their messages only."""
    full = (errno.ENOSPC, errno.EDQUOT)
    message = str(error)
    has_message = any(words in message for words in ("No space left", "os error 28", "disk is full"))
    return isinstance(error, DiskFull) or getattr(error, "errno", None) in full or has_message


def no_space(folder: Path) -> DiskFull:
    """Make the message about a full disk."""
    text = input_error(
        f"no space is left in {folder}",
        lost="nothing that was reported; nothing is half-written",
        hint="make space (mpdit clean shows what can go), then run the same command again: it continues",
    )
    return DiskFull(str(text))
