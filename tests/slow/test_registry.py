"""The winner of the shipped sweep in MLflow's model registry, and its samples in the image viewer."""

from pathlib import Path

import mlflow
import pytest
import torch

import mpdit
from mpdit.training.cadence import is_sampled
from sweeps.spec.reading import read_spec
from sweeps.storage.layout import Storage
from sweeps.tracking.mlflow_view import CELLS, TRIAL, tracking_uri
from tests.slow.conftest import mpdit_json

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("whole"), pytest.mark.filterwarnings("ignore")]


def test_one_line_downloads_and_loads_the_best(whole_sweep: Path) -> None:
    best = mpdit_json("best", "conditioning", "--storage", "runs", cwd=whole_sweep)
    mlflow.set_tracking_uri(tracking_uri(Storage(whole_sweep / "runs"), None))
    model, recipe = mpdit.load(mlflow.artifacts.download_artifacts("models:/conditioning@best"))
    assert recipe["model"]["modulation"] == best["params"]["model.modulation"]
    assert recipe["ema"]["sigma_rel"] == best["params"]["ema.sigma_rel"]
    assert model(torch.zeros(1, 1, 8, 8), torch.ones(1), torch.tensor([3])).shape == (1, 1, 8, 8)


def test_every_cell_has_one_picture_in_its_trial_s_viewer(whole_sweep: Path) -> None:
    client = mlflow.MlflowClient(tracking_uri=tracking_uri(Storage(whole_sweep / "runs"), None))
    experiment = client.get_experiment_by_name("conditioning")
    assert experiment is not None
    trials = client.search_runs([experiment.experiment_id], "tags.`mpdit.kind` = 'trial'")
    assert len(trials) == 9
    steps = read_spec(whole_sweep / "conditioning").recipe.steps
    grids = sum(is_sampled(step) or step == steps for step in range(steps + 1))
    for trial in trials:
        files = [file.path for file in client.list_artifacts(trial.info.run_id, "images")]
        images = [path for path in files if path.endswith(".png")]
        own = f"{CELLS} and tags.`{TRIAL}` = '{trial.data.tags[TRIAL]}'"
        cells = client.search_runs([experiment.experiment_id], own)  # the best trials' have some on fresh noise too
        assert len([path for path in images if path.startswith("images/samples sigma_rel")]) == len(cells) >= 5
        assert len([path for path in images if path.startswith("images/samples as they grow")]) == grids
