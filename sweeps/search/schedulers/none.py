"""Every trial is trained to its end."""

from sweeps.spec.scheduler_kind import SCHEDULERS, SchedulerKind

NONE = SCHEDULERS.register(SchedulerKind(name="none", doc="no trial is stopped; there are no rungs", rule=None))
