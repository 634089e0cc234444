"""How much nearer the samples are to what was trained on than to images that were held out."""

from pipelines.scoring.metrics.held_out.frechet_held_out import held_out_distances
from pipelines.scoring.metrics.registry import METRICS, Metric

FRECHET_GAP = METRICS.register(
    Metric(
        name="frechet_gap",
        doc="Fréchet distance to held-out images minus that to as many training images; 0: nothing learnt by heart",
        label="gap between held-out and training images",
        measure=held_out_distances,
        needs_holdout=True,
    )
)
