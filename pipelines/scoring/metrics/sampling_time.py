"""How long drawing a sample takes."""

from pipelines.scoring.metrics.registry import METRICS, Metric

SAMPLING_TIME = METRICS.register(
    Metric(
        name="sampling_time",
        doc="seconds of drawing one sample, the median over batches, without its features",
        label="seconds a sample",
        read=lambda cell: cell.sampling_seconds,
    )
)
