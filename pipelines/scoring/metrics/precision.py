"""Improved precision (arXiv 1904.06991)."""

from pipelines.scoring.metrics.registry import METRICS, Features, Metric


def precision_and_recall(features: Features) -> dict[str, float]:
    """Both as torch-fidelity computes them; computed once for the two metrics."""
    if "precision_recall" not in features.shared:
        from torch_fidelity.metric_prc import prc_features_to_metric

        found = prc_features_to_metric(features.fake, features.real, verbose=False, save_cpu_ram=True)
        features.shared["precision_recall"] = {name: found[name] for name in ("precision", "recall")}
    shared: dict[str, float] = features.shared["precision_recall"]
    return shared


PRECISION = METRICS.register(
    Metric(
        name="precision",
        doc="share of the samples that lie among the data (torch-fidelity's)",
        label="precision",
        larger_is_better=True,
        measure=lambda features: {"precision": precision_and_recall(features)["precision"]},
    )
)
