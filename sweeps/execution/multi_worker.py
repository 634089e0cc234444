"""A trial that several workers train together: Ray Train starts them, and the first of them reports and scores."""

import threading
import uuid
from pathlib import Path
from typing import Any

from pipelines.recipe import Recipe
from pipelines.training.measurements import Diverged
from pipelines.training.trainer import join_training, train
from pipelines.training.training_folder import halve_micro_batch, is_trained, settle_recipe
from sweeps.execution.worker import Send, fault, folder_of, run_job
from sweeps.storage.bucket import open_bucket
from sweeps.storage.events import Event, TrialEnded, encode
from sweeps.storage.folder_sync import synced
from sweeps.storage.trial_status import TrialStatus

WAIT = 0.2  # seconds between two looks at whether the group has ended


def run_in_group(config: dict[str, Any]) -> None:
    """Ray Tune's trainable: holds no resources itself; where memory runs out, the group is tried once more.

    Raises where a worker died, so that Tune starts the trial again from its checkpoint.
    """
    from ray import tune

    job = config["job"]

    def send(event: Event) -> None:
        tune.report({"event": encode(event)})

    end = _run_group(job, send)
    if end.outcome is TrialStatus.OUT_OF_MEMORY and _halved(job):
        end = _run_group(job, send)
    send(end)


def _halved(job: dict[str, Any]) -> bool:
    """Let the group go on with half a batch at a time, where the recipe leaves it open."""
    folder = folder_of(job)
    with synced(open_bucket(job["bucket"]) if job["bucket"] else None, f"trials/{job['trial']}", folder):
        return halve_micro_batch(folder, job["workers"]) is not None


def _run_group(job: dict[str, Any], send: Send) -> TrialEnded:
    """Start the workers and pass on what they tell; returns the trial's end."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Empty, Queue

    mailbox = Queue(actor_options={"num_cpus": 0})
    each = {"CPU": job["threads"], "GPU": job["gpus"]}
    trainer = TorchTrainer(
        _member,
        train_loop_config={"job": job, "mailbox": mailbox},
        scaling_config=ScalingConfig(
            num_workers=job["workers"],
            use_gpu=bool(job["gpus"]),
            resources_per_worker={name: amount for name, amount in each.items() if amount},
        ),
        run_config=RunConfig(name=f"{job['trial']}-{uuid.uuid4().hex}", storage_path=job["scratch"]),
    )
    problems: list[Exception] = []
    group = threading.Thread(target=_fit, args=(trainer, problems), daemon=True)
    group.start()
    end: TrialEnded | None = None
    while True:
        running = group.is_alive()  # before the mailbox: what comes with the end is not missed
        try:
            event = mailbox.get(timeout=WAIT)
        except Empty:
            if running:
                continue
            break
        if isinstance(event, TrialEnded):
            if (
                end is None or end.outcome is TrialStatus.FAILED
            ):  # who loses a neighbour fails too, and may be the first
                end = event
        else:
            send(event)
    mailbox.shutdown()
    if problems and (end is None or _lost_a_worker(problems[0])):
        raise problems[0]
    if end is None:
        raise RuntimeError("the workers ended without a word")
    return end


def _lost_a_worker(problem: Exception) -> bool:
    """Whether a worker died: the others then fail in the middle of a step, which is no fault of the trial."""
    failures = getattr(problem, "worker_failures", {}).values()
    return any(type(failure).__name__.startswith("WorkerHealthCheck") for failure in failures)


def _fit(trainer: Any, problems: list[Exception]) -> None:
    try:
        trainer.fit()
    except Exception as problem:
        problems.append(problem)


def _member(config: dict[str, Any]) -> None:
    """What one worker of the group does. Raises to end the group: the others wait for it in the middle of a step."""
    import ray.train

    job, send = config["job"], config["mailbox"].put
    if ray.train.get_context().get_world_rank() == 0:
        if not _first(job, send).is_final:
            raise RuntimeError("the trial has ended")
        return
    settled, trained = _agreed(None)
    try:
        if not trained:
            join_training(settled)  # what lies on this machine may be older, or never sent
    except Diverged:
        pass  # so has the first worker, who tells it
    except Exception as error:
        folder = folder_of(job)
        folder.mkdir(parents=True, exist_ok=True)
        send(TrialEnded(job["trial"], **fault(error, folder)))
        raise


def _first(job: dict[str, Any], send: Send) -> TrialStatus:
    outcome = TrialStatus.FAILED

    def heard(event: Event) -> None:
        nonlocal outcome
        if isinstance(event, TrialEnded):
            outcome = event.outcome
        send(event)

    def training(recipe: Recipe, folder: Path, *others: Any) -> Recipe:
        _agreed((settle_recipe(recipe, folder, job["threads"]), is_trained(folder)))
        return train(recipe, folder, *others)

    run_job(job, heard, training)
    return outcome


def _agreed(told: tuple[Recipe, bool] | None) -> tuple[Recipe, bool]:
    """What the first worker tells the others: the recipe as its folder trains it, and whether it has been trained."""
    import torch.distributed

    held = [told]
    torch.distributed.broadcast_object_list(held)
    assert held[0] is not None
    return held[0]
