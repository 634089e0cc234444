"""How a trial stands, and how a sweep ends: the one list of outcomes."""

from collections.abc import Iterable
from enum import StrEnum
from functools import cache


class TrialStatus(StrEnum):
    """The status of a trial. The members are ordered worst first.

    completed and diverged are final: the same recipe would end so again. A stopped trial has ended too, and only
    `mpdit retry` continues it; failed and out_of_memory are faults, which the same command tries again. A preempted
    trial, whose machine was taken back, goes on by itself where there is room.
    """

    FAILED = "failed"
    OUT_OF_MEMORY = "out_of_memory"
    INTERRUPTED = "interrupted"
    PREEMPTED = "preempted"
    DIVERGED = "diverged"
    STOPPED = "stopped"
    RUNNING = "running"
    PENDING = "pending"
    COMPLETED = "completed"

    @property
    def is_final(self) -> bool:
        """Whether the same recipe would end so again, so that other sweeps take it over."""
        return self in (TrialStatus.COMPLETED, TrialStatus.DIVERGED)

    @property
    def is_ended(self) -> bool:
        """Whether the same command leaves the trial as it is."""
        return self.is_final or self is TrialStatus.STOPPED

    @property
    def is_cut_short(self) -> bool:
        """Whether the trial has ended before its last step, so that none of its cells is scored."""
        return self.is_ended and self is not TrialStatus.COMPLETED

    @property
    def is_open(self) -> bool:
        """Whether the trial waits, runs, or is to be continued by the same command."""
        return self in (TrialStatus.PENDING, TrialStatus.RUNNING, TrialStatus.INTERRUPTED, TrialStatus.PREEMPTED)

    @property
    def is_fault(self) -> bool:
        """Whether an error ended the trial."""
        return self in (TrialStatus.FAILED, TrialStatus.OUT_OF_MEMORY)

    @property
    def has_no_value(self) -> bool:
        """Whether the trial ended in a way that leaves nothing to rank."""
        return self.is_fault or self is TrialStatus.DIVERGED

    @classmethod
    def worst(cls, statuses: "Iterable[TrialStatus]") -> "TrialStatus":
        """The status of a point, from those of its seeds."""
        return min(statuses, key=_ranks().__getitem__)


@cache
def _ranks() -> dict[TrialStatus, int]:
    return {status: at for at, status in enumerate(TrialStatus)}
