"""A constant learning rate."""

from mpdit.training.lr_schedules.registry import LR_SCHEDULES, LrSchedule

LR_SCHEDULES.register(
    LrSchedule("constant", "the rate stays", lambda _step, _start, _steps: 1.0, falls=False, knows_the_end=False)
)
