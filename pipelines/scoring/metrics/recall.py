"""Improved recall (arXiv 1904.06991)."""

from pipelines.scoring.metrics.precision import precision_and_recall
from pipelines.scoring.metrics.registry import METRICS, Metric

RECALL = METRICS.register(
    Metric(
        name="recall",
        doc="share of the data that lies among the samples (torch-fidelity's)",
        label="recall",
        larger_is_better=True,
        measure=lambda features: {"recall": precision_and_recall(features)["recall"]},
    )
)
