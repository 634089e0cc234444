"""Metrics as kinds: what each declares, and what an evaluation may ask for."""

from pathlib import Path

import pytest
import torch

from mpdit.errors import InputError
from mpdit.registry import Plugin
from pipelines import identity
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.metrics.registry import METRICS, Features, Metric, measured_metrics
from pipelines.scoring.reference import extractor_for


def test_an_evaluation_measures_what_it_names_and_precision_recall_stands_for_both() -> None:
    asked = Evaluation(metrics=["precision_recall", "kid", "precision"])
    assert asked.metrics == ["kid", "precision", "precision_recall"]
    assert [metric.name for metric in measured_metrics(asked.metrics)] == ["kid", "precision", "recall"]


@pytest.mark.parametrize(
    ("name", "says"), [("kidd", "nearest: +kid"), ("parameters", "known of every cell"), ("nothere.x", "plug-in")]
)
def test_an_evaluation_does_not_name_what_cannot_be_measured(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Evaluation(metrics=[name])


@pytest.mark.parametrize("metric", list(METRICS), ids=lambda metric: metric.name)
def test_a_metric_is_measured_under_its_own_name_or_read(metric: Metric) -> None:
    assert metric.doc and metric.label
    if metric.measure is None:
        return
    features = torch.randn(40, 64, generator=torch.Generator().manual_seed(0))
    extractor = extractor_for(Recipe().dataset, "auto")
    wide = torch.nn.functional.pad(features, (0, extractor.dimensions - 64))
    labels = torch.arange(40) % 4
    given = Features(wide, wide + 0.1, extractor, real_labels=labels, held_out=wide - 0.1, fake_labels=labels)
    found = metric.measure(given)
    assert isinstance(found[metric.name], float)


def test_precision_and_recall_are_computed_once() -> None:
    extractor = extractor_for(Recipe().dataset, "auto")
    features = Features(torch.randn(40, 8), torch.randn(40, 8), extractor)
    first = METRICS["precision"].measure
    second = METRICS["recall"].measure
    assert first and second
    first(features)
    features.shared["precision_recall"]["recall"] = 0.125
    assert second(features) == {"recall": 0.125}


def test_a_metric_has_one_source() -> None:
    with pytest.raises(ValueError, match="one of measure and read"):
        Metric(name="made", doc="made up", label="made")


def test_an_unknown_metric_is_an_input_error() -> None:
    with pytest.raises(InputError, match="no metric 'fid'"):
        METRICS["fid"]


def test_every_metric_has_its_line_in_the_docs() -> None:
    lines = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text().splitlines()
    for metric in METRICS:
        better = "larger" if metric.larger_is_better else "smaller"
        assert any(line.startswith(f"| `{metric.name}` | {metric.doc} | {better} |") for line in lines), metric.name


def test_the_plug_in_of_a_metric_is_part_of_a_cells_key(monkeypatch: pytest.MonkeyPatch) -> None:
    METRICS.names()
    made = Metric(name="made.up", doc="made up", label="made up", measure=lambda features: {"made.up": 1.0})
    monkeypatch.setattr(METRICS, "_kinds", {**METRICS._kinds, made.name: made})
    keys = []
    for version in ("1.0", "1.1"):
        monkeypatch.setattr(
            identity, "plugin_of", lambda name, version=version: Plugin("made", version) if "." in name else None
        )
        keys.append([Cell(0.1, Evaluation(metrics=metrics)).key for metrics in (["kid"], ["kid", "made.up"])])
    assert keys[0][0] == keys[1][0]
    assert keys[0][1] != keys[1][1]
