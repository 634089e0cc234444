"""Encode, train, score: the paper's sweep in small, with a tiny VAE and made-up images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mpdit.data.registry import load_dataset
from pipelines.data.encode import make_latents
from pipelines.data.prepare import prepare
from pipelines.scoring.train_classifier import train_extractor
from sweeps.execution.trial_job import TrialJob
from sweeps.execution.worker import run_trial
from sweeps.planning.plan import make_plan
from sweeps.spec.reading import read_spec, sweep_file
from sweeps.storage.events import CellScored
from sweeps.storage.ledger import only
from tests.pipelines.data.test_encode import tiny_vae


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 pictures of 16×16 in four classes of colour, as latents of 3×8×8, with the images' features."""
    root = tmp_path_factory.mktemp("whole")
    random = np.random.default_rng(0)
    for number in range(64):
        folder = root / "raw" / f"class{number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 60, (16, 16, 3)) + 45 * (number % 4)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02}.png")
    prepare(str(root / "raw"), root / "made-up", 16)
    train_extractor(load_dataset("folder", path=str(root / "made-up")), root / "made-up" / "features", steps=20)
    make_latents(str(root / "made-up"), root / "latents", str(tiny_vae(root / "vae")))
    return root / "latents"


@pytest.mark.slow
def test_the_papers_sweep_runs_in_small(encoded: Path, tmp_path: Path) -> None:
    small = {
        "recipe.data.path": encoded,
        "recipe.model.size": "nano",
        "recipe.steps": 6,
        "recipe.batch": 8,
        "recipe.runtime": "{device: cpu, threads: 1}",
        "evaluation": "{samples: 40, sampler: ddim, steps: 2}",
        "axes.model.modulation": "[scale+rotation+gate]",
        "axes.ema.sigma_rel": "[0.1]",
        "axes.evaluation.guidance": "[1.0, 1.5]",
    }
    spec = read_spec(sweep_file("imagenet128"), [f"{path}={value}" for path, value in small.items()])
    plan = make_plan(spec)
    trial, events = plan.trials[0], []
    cells = [planned.cell for planned in plan.cells]
    run_trial(
        TrialJob(trial=trial.id, recipe=trial.recipe, folder=tmp_path / "trial", cells=cells, threads=1), events.append
    )
    assert events[-1].outcome == "completed", events[-1]
    scores = only(events, CellScored)
    assert [cell.metric for cell in scores] == ["fd_made-up_40"] * 2
    assert all(np.isfinite(cell.value) for cell in scores)
    assert scores[0].provenance["data"] == load_dataset("latents", path=str(encoded)).fingerprint
    picture = next((tmp_path / "trial" / "samples").glob("*.png"))
    with Image.open(picture) as image:
        assert image.mode == "RGB"  # decoded, not the three channels of latents: those are 8 pixels a side
        assert image.width % 72 == 64


def test_the_same_latents_elsewhere_are_the_same_trial(encoded: Path, tmp_path: Path) -> None:
    import shutil

    from pipelines.identity import trial_id
    from pipelines.recipe import Recipe

    shutil.copytree(encoded, tmp_path / "elsewhere")
    here, there = (
        Recipe.model_validate({"data": {"name": "latents", "path": str(path)}})
        for path in (encoded, tmp_path / "elsewhere")
    )
    assert trial_id(here) == trial_id(there)
    assert torch.equal(here.dataset.labels, there.dataset.labels)


def test_the_papers_sweep_is_the_papers() -> None:
    recipe = read_spec(sweep_file("imagenet128")).recipe
    assert (recipe.model.size, recipe.model.patch, recipe.steps, recipe.batch) == ("XS", 2, 400_000, 256)
    assert (recipe.optimizer.lr, recipe.objective.name) == (0.01, "ddpm")
    assert recipe.optimizer.warmup * recipe.steps == pytest.approx(400_000 // 150, rel=0.01)
    assert recipe.optimizer.decay_from * recipe.steps == pytest.approx(40_000)
    assert read_spec(sweep_file("imagenet128")).evaluation.samples == 10_000


def test_the_shapes_sweep_is_planned() -> None:
    plan = make_plan(read_spec(sweep_file("shapes")))
    assert len(plan.trials) == 36
    assert len({trial.id for trial in plan.trials}) == 36
