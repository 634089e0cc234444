"""What a worker does for one trial, called directly: rounds of staged scoring on a real run."""

import errno
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipelines.scoring.evaluation import SCORES
from pipelines.training.energy import Counter
from sweeps.execution.trial_job import TrialJob
from sweeps.execution.worker import run_trial
from sweeps.planning.plan import Plan
from sweeps.planning.staged_scoring import missing_cells
from sweeps.results.ranking import rank
from sweeps.storage.events import CellScored, Event, Progress, SamplesDrawn, TrialEnded
from sweeps.storage.layout import is_locked, locked
from sweeps.storage.ledger import only
from tests.sweeps.conftest import plan_of

SMALL: dict[str, Any] = {
    "recipe": {"steps": 8, "batch": 16, "runtime": {"device": "cpu"}},
    "evaluation": {"samples": 500, "steps": 1, "sampler": "ddim"},
}


def scored_in_rounds(plan: Plan, folder: Path) -> list[list[Event]]:
    """The events of each round; Ray's part, which only carries them, is left out."""
    events: list[list[Event]] = []
    trial = plan.trials[0]
    while missing := missing_cells(plan, [line for one in events for line in one]):
        events.append([])
        cells = missing[trial.id]
        keep = any(cell.evaluation.samples < plan.spec.evaluation.samples for cell in cells)
        run_trial(
            TrialJob(trial=trial.id, recipe=trial.recipe, folder=folder, cells=cells, threads=1, keep=keep),
            events[-1].append,
        )
    return events


def test_rounds_end_with_the_winner_and_the_value_of_scoring_in_full(tmp_path: Path) -> None:
    axes = {"ema.sigma_rel": [0, 0.05, 0.1]}
    staged, full = plan_of(axes, **SMALL, screening={"samples": 250}), plan_of(axes, **SMALL)
    first, second = scored_in_rounds(staged, tmp_path)
    assert [line.drawn for line in first if isinstance(line, CellScored)] == [250, 250, 250]
    assert [line.drawn for line in second if isinstance(line, CellScored)] == [250]  # on top of the first round's
    one, other = only(first + second, TrialEnded)
    assert [one.outcome, other.outcome] == ["completed"] * 2
    assert one.scoring_work == 3 * (other.scoring_work or 0.0)
    assert len(list((tmp_path / SCORES).iterdir())) == 2  # the features of the cells that were screened only
    (whole,) = scored_in_rounds(full, tmp_path)
    best, wanted = rank(staged, first + second)[0], rank(full, whole)[0]
    assert (best.params, best.value, best.stderr) == (wanted.params, wanted.value, wanted.stderr)


def test_a_cell_without_finite_samples_is_marked_and_the_rest_is_scored(tmp_path: Path) -> None:
    from mpdit.run_folder import read_weights, write_weights

    plan = plan_of({"ema.sigma_rel": [0, 0.1]}, **{**SMALL, "evaluation": {"samples": 50, "steps": 1}})
    trial, events = plan.trials[0], list[Event]()
    run_trial(TrialJob(trial=trial.id, recipe=trial.recipe, folder=tmp_path, cells=[], threads=1), events.append)
    denoiser, step = read_weights(tmp_path / "ema" / "raw.safetensors")
    torch.nn.init.constant_(denoiser.network.final.gain, torch.inf)
    write_weights(tmp_path / "ema" / "raw.safetensors", dict(denoiser.named_parameters()), denoiser, step)
    run_trial(
        TrialJob(
            trial=trial.id,
            recipe=trial.recipe,
            folder=tmp_path,
            cells=[planned.cell for planned in plan.cells],
            threads=1,
        ),
        events.append,
    )
    cells = {line.params["ema.sigma_rel"]: line.value for line in events if isinstance(line, CellScored)}
    assert cells[0] is None
    assert cells[0.1] > 0
    assert [row.status for row in rank(plan, events)] == ["completed", "diverged"]


def test_a_trial_tells_its_energy_and_shows_its_samples_on_the_way(tmp_path: Path) -> None:
    plan = plan_of({"ema.sigma_rel": [0.1]}, **{**SMALL, "evaluation": {"samples": 50, "steps": 1}})
    trial, events, joules = plan.trials[0], list[Event](), itertools.count()
    counter = Counter(lambda: float(next(joules)), fraction=0.5)  # the machine's edge: a joule at each look
    cells = [planned.cell for planned in plan.cells]
    run_trial(
        TrialJob(trial=trial.id, recipe=trial.recipe, folder=tmp_path, cells=cells, threads=1),
        events.append,
        energy_counters=[counter],
    )
    told = [line.metrics["energy_joules"] for line in events if isinstance(line, Progress)]
    assert told == [0.5 * at for at in range(1, len(told) + 1)]
    (end,) = only(events, TrialEnded)
    assert (end.energy_joules or 0.0) > (told[-1] or 0.0)  # with the scoring
    grown = {line.step: line.picture for line in events if isinstance(line, SamplesDrawn)}
    assert list(grown) == [0, 8]
    assert all((tmp_path / "samples" / picture).exists() for picture in grown.values())


def with_room_for(samples: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A device with memory for so many samples at once: the machine's edge, which no test can fill up safely."""
    from pipelines.training import trainer

    tried, accumulate = [], trainer.accumulate_gradient

    def limited(loss: Any, batch: Any, micro_batch: int, *rest: Any) -> Any:
        tried.append(micro_batch)
        if micro_batch > samples:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return accumulate(loss, batch, micro_batch, *rest)

    monkeypatch.setattr(trainer, "accumulate_gradient", limited)
    return tried


def end_of(plan: Plan, folder: Path) -> tuple[TrialEnded, list[Event]]:
    trial, events = plan.trials[0], list[Event]()
    run_trial(TrialJob(trial=trial.id, recipe=trial.recipe, folder=folder, cells=[], threads=1), events.append)
    assert isinstance(events[-1], TrialEnded)
    return events[-1], events


def test_out_of_memory_is_tried_once_more_with_half_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of({"seed": [0]}, **SMALL)
    tried = with_room_for(8, monkeypatch)
    end, _ = end_of(plan, tmp_path)
    assert end.outcome == "completed"
    assert tried == [16] + [8] * 8
    assert end.runtime["micro_batch"] == 8  # and so it goes on after an interruption
    assert end_of(plan, tmp_path)[0].outcome == "completed"  # the folder is still of this trial
    assert "8 samples at once" in (tmp_path / "log.txt").read_text()


def test_out_of_memory_twice_is_an_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_room_for(4, monkeypatch)
    end, _ = end_of(plan_of({"seed": [0]}, **SMALL), tmp_path)
    assert end.outcome == "out_of_memory"
    assert "set runtime.micro_batch: 4" in str(end.reason)


def test_a_micro_batch_that_the_recipe_names_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = {**SMALL["recipe"], "runtime": {"device": "cpu", "micro_batch": 16}}
    tried = with_room_for(8, monkeypatch)
    assert end_of(plan_of({"seed": [0]}, **{**SMALL, "recipe": recipe}), tmp_path)[0].outcome == "out_of_memory"
    assert tried == [16]


def test_a_full_disk_interrupts_the_trial_and_space_lets_it_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    plan = plan_of({"seed": [0]}, **SMALL)
    undisturbed = tmp_path / "undisturbed"
    assert end_of(plan, undisturbed)[0].outcome == "completed"

    full, save_file = tmp_path / "full", safetensors.torch.save_file
    written: list[Path] = []

    def until_full(tensors: Any, path: Path, **facts: Any) -> None:  # the machine's edge: room for three checkpoints
        if "checkpoints" not in path.parts:
            return save_file(tensors, path, **facts)
        written.append(path)
        path.write_bytes(b"half")
        if len(written) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save_file(tensors, path)

    monkeypatch.setattr(safetensors.torch, "save_file", until_full)
    end, _ = end_of(plan, full)
    assert end.outcome == "interrupted"
    assert end.disk_full
    assert str(end.reason).startswith("no space is left in")
    assert not list(full.glob("checkpoints/partial-*"))
    monkeypatch.undo()
    end, after = end_of(plan, full)
    assert end.outcome == "completed"
    assert next(line.step for line in after if isinstance(line, Progress)) == 8
    one, other = (load_file(folder / "ema" / "raw.safetensors") for folder in (undisturbed, full))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_trial_that_another_process_runs_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.execution.worker.LOCK_PATIENCE", 0)
    with locked(tmp_path / "lock", "the trial"):
        end, events = end_of(plan_of({"seed": [0]}, **SMALL), tmp_path)
    assert (end.outcome, end.held) == ("interrupted", True)
    assert "is being run by another process" in str(end.reason)
    assert events == [end]


def test_a_trial_is_locked_until_its_end_is_sent(tmp_path: Path) -> None:
    plan = plan_of({"seed": [0]}, **SMALL)
    trial, at_end = plan.trials[0], list[bool]()

    def send(event: Event) -> None:
        if isinstance(event, TrialEnded):
            at_end.append(is_locked(tmp_path / "lock"))

    run_trial(TrialJob(trial=trial.id, recipe=trial.recipe, folder=tmp_path, cells=[], threads=1), send)
    assert at_end == [True]
    assert not is_locked(tmp_path / "lock")


def test_a_folder_that_cannot_be_made_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "trials").touch()
    end, _ = end_of(plan_of({"seed": [0]}, **SMALL), tmp_path / "trials" / "a")
    assert end.outcome == "failed"
    assert str(end.reason).startswith("NotADirectoryError")
