"""How far the samples' features spread: one number of a cell."""

from pipelines.scoring.metrics.registry import METRICS, Features, Metric


def spread(features: Features) -> dict[str, float]:
    """The mean standard deviation of the features of the samples."""
    return {"example.spread": float(features.fake.std(0).mean())}


SPREAD = METRICS.register(
    Metric(
        name="example.spread",
        doc="mean standard deviation of the samples' features",
        label="spread",
        larger_is_better=True,
        measure=spread,
    )
)
