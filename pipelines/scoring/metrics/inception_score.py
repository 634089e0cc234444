"""Inception score (arXiv 1606.03498)."""

from pipelines.scoring.metrics.registry import METRICS, Features, Metric


def inception_score(features: Features) -> dict[str, float]:
    """The mean over splits, as torch-fidelity computes it from the classifier's logits."""
    import torch
    from torch_fidelity.metric_isc import isc_features_to_metric

    extractor = features.extractor
    if extractor.logits is None:
        return {}
    device = next(extractor.network.parameters()).device
    with torch.inference_mode():
        logits = extractor.logits(features.fake.to(device)).cpu()
    return {"inception_score": isc_features_to_metric(logits)["inception_score_mean"]}


INCEPTION_SCORE = METRICS.register(
    Metric(
        name="inception_score",
        doc="how sure and how varied the classifier's labels of the samples are (torch-fidelity's)",
        label="Inception score",
        larger_is_better=True,
        measure=inception_score,
        needs_classes=True,
    )
)
