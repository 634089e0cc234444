"""What crosses to a worker arrives as it was sent."""

import pickle
from pathlib import Path

from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell, Evaluation
from sweeps.execution.trial_job import Rungs, TrialJob


def test_a_job_arrives_at_its_worker_as_it_was_sent(small_recipe: Recipe, tmp_path: Path) -> None:
    cells = [Cell(0.1, Evaluation(guidance=1.5, guidance_interval=(0.3, 5.0))), Cell(0.0, Evaluation(samples=50))]
    rungs = Rungs([0.25, 0.5], Evaluation(samples=60), [0.05, 0.1])
    job = TrialJob(trial="t", recipe=small_recipe, folder=tmp_path, threads=2, cells=cells, rungs=rungs, gpus=0.5)
    assert pickle.loads(pickle.dumps(job)) == job


def test_a_job_crosses_as_plain_values(small_recipe: Recipe, tmp_path: Path) -> None:
    job = TrialJob(trial="t", recipe=small_recipe, folder=tmp_path, threads=1, cells=[Cell(0.1, Evaluation())])
    sent = pickle.dumps(job)
    assert b"TrialJob" not in sent  # only the function that builds it again, from plain values
    assert b"Recipe" not in sent
    assert b"Evaluation" not in sent
