"""How often a sampler evaluates the network."""

from pipelines.scoring.metrics.registry import METRICS, Metric

NFE = METRICS.register(
    Metric(
        name="nfe",
        doc="evaluations of the network for one sample, guidance included",
        label="network evaluations",
        is_count=True,
        read=lambda cell: cell.provenance.get("nfe"),
    )
)
