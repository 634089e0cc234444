"""The Fréchet distance between samples and data; see mpdit/scoring/frechet.py."""

from pipelines.scoring.metrics.registry import METRICS, Metric

FRECHET = METRICS.register(
    Metric(
        name="frechet",
        doc="Fréchet distance between samples and data, in the features of `evaluation.extractor`",
        label="Fréchet distance",
        read=lambda cell: cell.value,
        at_rung=lambda score: score.value,
        has_folds=True,
    )
)
