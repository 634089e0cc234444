"""The one kind of error that a person can mend, and how it reads."""

from collections.abc import Iterable
from difflib import get_close_matches


class BadInput(ValueError):
    """Something the user gave cannot be used; the text says what, what is allowed, and the mend.

    Every floor may raise it. The command line prints it without a traceback and exits with 2.
    """


def nearest(given: object, allowed: Iterable[object]) -> str | None:
    """The allowed name that looks most like what was given, or None when none does."""
    matches = get_close_matches(str(given), [str(name) for name in allowed], n=1, cutoff=0.5)
    return matches[0] if matches else None


def refusal(headline: str, **facts: object) -> BadInput:
    """A message to a person: one headline, then one aligned line for each known fact.

    `refusal("no sweep 'x'", given="x", nearest=None)` leaves the unknown fact out.
    """
    known = {name.replace("_", " ") + ":": value for name, value in facts.items() if value is not None}
    width = max((len(name) for name in known), default=0) + 2
    return BadInput("\n".join([headline, *(f"  {name:<{width}}{value}" for name, value in known.items())]))
