"""CMMD (arXiv 2401.09603): the maximum mean discrepancy of CLIP's embeddings, which need no normal distribution."""

from typing import TYPE_CHECKING

from pipelines.scoring.metrics.registry import METRICS, Features, Metric

if TYPE_CHECKING:
    from torch import Tensor

SIGMA, SCALE = 10.0, 1000.0  # the published ones, for embeddings of length 1
AT_ONCE = 4096  # rows


def cmmd(features: Features) -> dict[str, float]:
    """The squared discrepancy under a Gaussian kernel, each row with itself included, as published."""
    import torch

    fake, real = (torch.nn.functional.normalize(rows.double(), dim=1) for rows in (features.fake, features.real))
    return {"cmmd": SCALE * (_kernel(fake, fake) + _kernel(real, real) - 2 * _kernel(fake, real))}


def _kernel(a: "Tensor", b: "Tensor") -> float:
    """The mean of exp(−‖x − y‖²/2σ²) over all pairs of rows of length 1."""
    total = sum(float(((part @ b.T - 1) / SIGMA**2).exp().sum()) for part in a.split(AT_ONCE))
    return total / (len(a) * len(b))


CMMD = METRICS.register(
    Metric(
        name="cmmd",
        doc="maximum mean discrepancy between samples and data in CLIP's features (arXiv 2401.09603)",
        label="CMMD",
        measure=cmmd,
        needs_features="clip",
    )
)
