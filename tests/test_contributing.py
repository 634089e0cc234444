"""What CONTRIBUTING.md says: each of its recipes is followed to its end with something made up.

Those of a modulation, a search, a scheduler, a metric and a tracking view have their tests beside the registries:
tests/mpdit/model/test_modulation.py, tests/sweeps/search/test_algorithms.py, tests/sweeps/results/test_metrics.py,
tests/sweeps/tracking/test_tracking_view.py. A plug-in of one's own: tests/slow/test_plugin.py.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import torch
from annotated_types import Gt
from pydantic import Field
from torch import Tensor, nn

from mpdit.data.dataset import Dataset
from mpdit.data.registry import DATASETS, DatasetKind, load_dataset
from mpdit.diffusion.objectives.registry import OBJECTIVES
from mpdit.errors import InputError
from mpdit.model.attention.registry import ATTENTIONS
from mpdit.model.design import Design
from mpdit.model.layers import linear, normalize
from mpdit.registry import not_a_setting
from mpdit.run_folder import load
from mpdit.schedules import edm_schedule
from mpdit.scoring import small_classifier
from pipelines.identity import changed_fields, trial_id
from pipelines.recipe import Optimizer, Recipe
from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.evaluation import evaluate, prepare
from pipelines.scoring.train_classifier import train_extractor
from pipelines.settings import POST_HOC, Settings
from pipelines.training.trainer import train
from sweeps.planning.plan import make_plan
from sweeps.spec import paths
from sweeps.spec.model import SweepSpec
from sweeps.storage.bucket import BUCKETS, BucketKind, Entry
from sweeps.storage.open_storage import open_storage
from tests.conftest import SMALL


def stripes() -> Dataset:
    """100 grey pictures of stripes that lie or stand, with some noise."""
    labels = torch.arange(100) % 2
    lying = (torch.arange(8) % 2 * 2.0 - 1).reshape(1, 8, 1).expand(1, 8, 8)
    noise = torch.randn(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = torch.where(labels.reshape(-1, 1, 1, 1) == 0, lying, lying.mT) * 0.8 + 0.05 * noise
    return Dataset("stripes", labels, 2, 1, 8, 0.8, "made here", 256, lambda index: (images[index],))


@dataclass(frozen=True)
class Stripes(DatasetKind):
    """As a file of mpdit/data/ would register it."""

    name: ClassVar[str] = "stripes"
    doc: ClassVar[str] = "stripes that lie or stand"

    def load(self) -> Dataset:
        """All of them."""
        return stripes()


def test_a_data_set_that_is_added_can_be_trained_on_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS._kinds, "stripes", Stripes)
    for module in ("mpdit.scoring.small_classifier", "pipelines.scoring.train_classifier"):
        monkeypatch.setattr(f"{module}.WEIGHTS", tmp_path / "weights")
    evaluation, results = Evaluation(samples=20, steps=1), list[dict[str, Any]]()
    recipe = Recipe.model_validate({**SMALL, "steps": 2, "data": {"name": "stripes"}})
    with pytest.raises(InputError, match=r"python -m pipelines\.scoring\.train_classifier NAME"):
        prepare(recipe, [evaluation])
    train_extractor(load_dataset("stripes"), small_classifier.WEIGHTS, steps=2)
    settled = train(recipe, tmp_path / "run", lambda line: None, threads=1)
    evaluate(tmp_path / "run", settled, [Cell(0.0, evaluation)], results.append)
    assert results[0]["metric"] == "fd_stripes_20"
    assert results[0]["value"] > 0


@dataclass(frozen=True)
class Mean:
    """As a file of mpdit/model/attention/ would register it."""

    name: ClassVar[str] = "mean"
    doc: ClassVar[str] = "every token sees the mean of all"
    own: Annotated[float, Gt(0)] = 0.5

    def check(self, design: Design) -> None:
        """Goes with every design."""

    def build(self, width: int, heads: int, design: Design) -> nn.Module:
        """The layer of this width."""
        return MeanLayer(width, self.own, design)

    def flop(self, tokens: int, width: int, heads: int) -> int:
        """The mean, and its sum with the values."""
        return 3 * tokens * width


class MeanLayer(nn.Module):
    def __init__(self, width: int, own: float, design: Design) -> None:
        super().__init__()
        self.own, self.value = own, linear(design, width, width)

    def forward(self, x: Tensor) -> Tensor:
        values = self.value(x)
        return normalize(self.own * values + (1 - self.own) * values.mean(1, keepdim=True))


def test_an_attention_that_is_added_is_trained_loaded_and_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTENTIONS._kinds, "mean", Mean)
    recipe = Recipe.model_validate({**SMALL, "steps": 2, "model": {"attention": {"name": "mean", "own": 0.25}}})
    assert Recipe.model_validate(recipe.model_dump()) == recipe
    train(recipe, tmp_path / "run", lambda line: None, threads=1)
    denoiser, kept = load(tmp_path / "run", ema=0)
    assert denoiser.network.architecture.attention == Mean(own=0.25)
    assert kept["model"]["attention"] == {"name": "mean", "own": 0.25}
    axes = {
        "model.attention": ["softmax", "mean"],
        "model.attention.own": {"values": [0.25, 0.5], "when": {"model.attention": "mean"}},
    }
    plan = make_plan(SweepSpec.model_validate({"name": "made", "axes": axes}))
    assert [trial.recipe.model.attention for trial in plan.trials[1:]] == [Mean(0.25), Mean(0.5)]
    assert len({trial.id for trial in plan.trials}) == 3
    with pytest.raises(ValueError, match="the attention 'softmax' has no own"):
        Recipe.model_validate({"model": {"attention": {"name": "softmax", "own": 0.25}}})


@dataclass(frozen=True)
class Uniform:
    """As a file of mpdit/diffusion/objectives/ would register it: EDM's target, ln σ uniform."""

    name: ClassVar[str] = "uniform"
    doc: ClassVar[str] = "EDM's target with uniform ln σ"
    learned_variance: ClassVar[bool] = False
    uncertainty: ClassVar[bool] = False
    sigma_data: float = not_a_setting(0.5)
    span: Annotated[float, Gt(0)] = 4.0

    def noise_levels(self, normal: Tensor) -> Tensor:
        return torch.exp(self.span * (torch.special.ndtr(normal) - 0.5))

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        total = sigma**2 + self.sigma_data**2
        return self.sigma_data**2 / total, sigma * self.sigma_data * torch.rsqrt(total)

    def loss_weight(self, sigma: Tensor) -> Tensor:
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2

    def noise_schedule(self, steps: int) -> Tensor:
        return edm_schedule(steps)


def test_an_objective_that_is_added_is_trained_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES._kinds, "uniform", Uniform)
    recipe = Recipe.model_validate({**SMALL, "steps": 2, "objective": {"name": "uniform", "span": 3.0}})
    settled = train(recipe, tmp_path / "run", lambda line: None, threads=1)
    results: list[dict[str, Any]] = []
    evaluate(tmp_path / "run", settled, [Cell(0.0, Evaluation(samples=20, steps=1))], results.append)
    assert results[0]["value"] > 0
    assert load(tmp_path / "run", ema=0)[0].objective == Uniform(sigma_data=recipe.dataset.std, span=3.0)
    assert "objective.span" in paths.axis_paths()


def test_a_setting_that_is_added_changes_no_name_until_it_is_set() -> None:
    class Extended(Optimizer):
        momentum_decay: float = Field(0.0, ge=0)

    assert changed_fields(Extended()) == {}
    assert changed_fields(Extended(momentum_decay=0.5)) == {"momentum_decay": 0.5}
    plain = Recipe()
    named = plain.model_copy(update={"optimizer": Extended()})
    assert trial_id(named) == trial_id(plain)
    assert trial_id(plain.model_copy(update={"optimizer": Extended(momentum_decay=0.5)})) != trial_id(plain)
    assert ("optimizer.momentum_decay", False) in list(paths._leaves(Extended, "optimizer."))


def test_a_post_hoc_axis_is_marked_where_its_setting_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    class Extended(Evaluation):
        churn: Annotated[float, POST_HOC] = Field(0.0, ge=0)
        tries: int = 1

    monkeypatch.setattr(paths, "Evaluation", Extended)
    assert paths.is_post_hoc_path("evaluation.churn")
    assert not paths.is_post_hoc_path("evaluation.tries")
    assert "evaluation.churn" in paths.axis_paths()
    assert "evaluation.tries" not in paths.axis_paths()
    assert Cell(0.1, Extended()).params["evaluation.churn"] == 0.0
    changed: Settings = paths.with_values(Extended(), {"churn": 0.25})
    assert changed_fields(changed) == {"churn": 0.25}


class Memory:
    """A bucket that lasts as long as the process."""

    def __init__(self, url: str) -> None:
        self.url, self.objects = url, dict[str, bytes]()

    def entries(self, folder: str = "") -> dict[str, Entry]:
        base = f"{folder}/" if folder else ""
        found = {name: content for name, content in self.objects.items() if name.startswith(base)}
        return {name.removeprefix(base): Entry(len(c), str(hash(c)), self.now()) for name, c in found.items()}

    def read(self, name: str) -> bytes | None:
        return self.objects.get(name)

    def write(self, name: str, content: bytes) -> None:
        self.objects[name] = content

    def create(self, name: str, content: bytes) -> bool:
        return self.objects.setdefault(name, content) is content

    def replace(self, name: str, content: bytes, mark: str | None) -> str | None:
        known = self.objects.get(name)
        if mark != (None if known is None else str(hash(known))):
            return None
        self.objects[name] = content
        return str(hash(content))

    def fetch(self, wanted: Mapping[str, Path]) -> None:
        for name, path in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.objects[name])

    def send(self, files: Mapping[str, Path]) -> None:
        self.objects |= {name: path.read_bytes() for name, path in files.items()}

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            self.objects.pop(name, None)

    def remove_folder(self, folder: str) -> None:
        self.remove([name for name in self.objects if name == folder or name.startswith(f"{folder}/")])

    def now(self) -> datetime:
        return datetime.now(UTC)


def test_a_kind_of_bucket_that_is_added_holds_a_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Memory("memory://shelf")
    kind = BucketKind("memory", "this process's memory", "memory://NAME", lambda _url: bucket, lambda url: url)
    monkeypatch.setitem(BUCKETS._kinds, "memory", kind)
    storage = open_storage("memory://shelf")
    storage.prepare()
    assert bucket.read("VERSION") == b"1\n"
    bucket.write("sweeps/first/sweep.yaml", b"name: first\n")
    bucket.write("sweeps/first/ledger/000000000000.jsonl", b'{"time": "2030-01-01T00:00:00+00:00", "event": "x"}\n')
    assert open_storage("memory://shelf").sweep_names() == ["first"]
    with pytest.raises(InputError, match="memory://NAME"):
        open_storage("gopher://shelf")
