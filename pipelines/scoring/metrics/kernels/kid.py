"""Kernel Inception distance (arXiv 1801.01401)."""

from pipelines.scoring.metrics.registry import METRICS, Features, Metric

SUBSET = 1000  # samples of one subset, or what there is


def kid(features: Features) -> dict[str, float]:
    """The mean over subsets, as torch-fidelity computes it, and their standard deviation as `kid_std`."""
    from torch_fidelity.metric_kid import kid_features_to_metric

    size = min(SUBSET, len(features.fake), len(features.real))
    found = kid_features_to_metric(features.fake, features.real, kid_subset_size=size, verbose=False)
    return {"kid": found["kernel_inception_distance_mean"], "kid_std": found["kernel_inception_distance_std"]}


KID = METRICS.register(
    Metric(name="kid", doc="kernel distance between samples and data (torch-fidelity's)", label="KID", measure=kid)
)
