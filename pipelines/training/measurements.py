"""What a training reports of itself: its loss, its magnitudes, and that it has diverged."""

import math
from dataclasses import dataclass

from torch import Tensor

from mpdit.data.dataset import Dataset
from mpdit.errors import MpditError
from mpdit.training.magnitude import (
    activation_magnitudes,
    gradient_magnitude,
    magnitude_drift,
    update_magnitudes,
    weight_magnitude,
)
from mpdit.training.step import TrainingState

MAGNITUDE_LIMIT = 1e4  # a token magnitude beyond this is divergence even while the loss is finite


class Diverged(MpditError):
    """The loss, a gradient or an activation is not finite, or far too large: an outcome, not an error."""

    exit_code = 0

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(f"diverged by step {step}: {reason}")
        self.step, self.reason = step, reason


def network_metrics(state: TrainingState, dataset: Dataset) -> dict[str, float]:
    """Measure the network as it is, also before the first step.

    Raises Diverged for a token magnitude that is not finite or beyond the limit. A residual sum that is brought back to
    unit magnitude after it was measured has no limit.
    """
    magnitudes = activation_magnitudes(state.denoiser, dataset)
    is_brought_back = state.denoiser.network.architecture.design.renormalized
    for place, (mean, _) in magnitudes.items():
        limit = math.inf if is_brought_back and place.endswith("/residual") else MAGNITUDE_LIMIT
        if not math.isfinite(mean) or mean > limit:
            raise Diverged(state.step, f"a token magnitude of {mean:.3g}")
    metrics = {"magnitude_drift": magnitude_drift(magnitudes), "magnitude/weights": weight_magnitude(state.denoiser)}
    for place, (mean, std) in magnitudes.items():
        metrics |= {f"magnitude/{place}/mean": mean, f"magnitude/{place}/std": std}
    return metrics


@dataclass
class LastStep:
    """What only the step itself knows, for the report after it.

    Attributes:
        matrices_before: the weight matrices before the step.
        gradient_norm: of the whole gradient before it was clipped; None without clipping.
    """

    matrices_before: list[Tensor]
    gradient_norm: Tensor | None = None


def step_metrics(state: TrainingState, dataset: Dataset, loss: float, last: LastStep) -> dict[str, float]:
    """Measure the network, its gradient and its last update.

    Args:
        state: after the step.
        dataset: gives the probe batch.
        loss: the mean since the last report.
        last: what the last step left for the report.

    Raises:
        Diverged: the loss, the gradient or a token magnitude is not finite, or is beyond its limit.
    """
    gradient = gradient_magnitude(state.denoiser, last.gradient_norm)
    for name, value in (("loss", loss), ("gradient", gradient)):
        if not math.isfinite(value):
            raise Diverged(state.step, f"the {name} is {value}")
    metrics = {"loss": loss, "magnitude/gradients": gradient} | network_metrics(state, dataset)
    updates = update_magnitudes(state.denoiser, last.matrices_before)
    return metrics | {f"magnitude/update/{name}": value for name, value in updates.items()}
