"""Many runs: choose, run, record, rank, report. `from sweeps import run, rank` do what the commands do."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.api import rank, run
    from sweeps.execution.driver import SweepEnd
    from sweeps.results.ranking import Row

__all__ = ["Row", "SweepEnd", "rank", "run"]


def __getattr__(name: str) -> Any:
    """The public functions and what they return, imported when they are first used: Ray and torch take seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sweeps import api

    return getattr(api, name)
