"""The size of a model."""

from pipelines.scoring.metrics.registry import METRICS, Metric

PARAMETERS = METRICS.register(
    Metric(
        name="parameters",
        doc="trainable parameters of the model",
        label="parameters",
        unit="M",
        unit_size=1e6,
        is_count=True,
        read=lambda cell: float(cell.parameters),
    )
)
