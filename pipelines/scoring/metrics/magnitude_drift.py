"""How far a network's activations are from unit magnitude; see mpdit/training/magnitude.py."""

from pipelines.scoring.metrics.registry import METRICS, Metric

MAGNITUDE_DRIFT = METRICS.register(
    Metric(
        name="magnitude_drift",
        doc="largest |ln M| over blocks, M the mean token magnitude of the residual sum; 0: magnitude is kept",
        label="magnitude drift",
        read=lambda cell: cell.magnitude_drift,
        at_rung=lambda score: score.magnitude_drift,
    )
)
