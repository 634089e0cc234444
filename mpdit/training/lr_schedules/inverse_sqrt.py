"""The inverse square root of the step."""

from mpdit.training.lr_schedules.registry import LR_SCHEDULES, LrSchedule


def _factor(step: int, start: float, _steps: int) -> float:
    """1/√(step/start). Eq. 67 of arXiv 2312.02696."""
    return float((step / start) ** -0.5)


LR_SCHEDULES.register(
    LrSchedule("inverse_sqrt", "1/√(step/start) (Eq. 67 of arXiv 2312.02696)", _factor, knows_the_end=False)
)
