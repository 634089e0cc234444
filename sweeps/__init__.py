"""Many runs: choose, run, record, rank, report. `from sweeps import run, rank` do what the commands do."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.calls import rank, run
    from sweeps.ranking import Row
    from sweeps.runner import SweepEnd

__all__ = ["Row", "SweepEnd", "rank", "run"]


def __getattr__(name: str) -> Any:
    """The functions and what they return, imported when they are asked for: Ray and torch take seconds."""
    if name in __all__:
        from sweeps import calls

        return getattr(calls, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
