"""A trial that several workers train together: Ray Train starts them, and the first of them reports and scores."""

import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.recipe import Recipe
from pipelines.training.measurements import Diverged
from pipelines.training.trainer import join_training, train
from pipelines.training.training_folder import halve_micro_batch, is_trained, settle_recipe
from sweeps.execution.trial_job import TrialJob
from sweeps.execution.worker import Send, outcome_of_error, run_trial
from sweeps.storage.bucket import open_bucket
from sweeps.storage.events import Event, TrialEnded, TrialStarted, encode
from sweeps.storage.folder_sync import LOCK, PATIENCE, synced
from sweeps.storage.layout import locked
from sweeps.storage.trial_status import TrialStatus

ROOM = "room"  # beside each event that the driver gets
TAKEN_BACK = "its machine was taken back; it goes on where there is room"
POLL_SECONDS = 0.2  # between two looks at whether the group has ended


@dataclass(frozen=True)
class Room:
    """Where the workers of a group run: the id of a placement group, which holds their resources."""

    placement_group: str


SendOn = Callable[[Event | Room], None]


def give_back(rooms: Iterable[str]) -> None:
    """Give back the resources of groups that Tune has stopped, by their placement groups' ids.

    Ray Train does so itself only for groups that end, and on clusters that run Ray's dashboard.
    """
    from ray import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    for room in rooms:
        remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(room)))


def run_in_group(config: dict[str, Any]) -> None:
    """Run a trial of several workers as Ray Tune's trainable, which holds no resources itself.

    Where memory runs out, the group is started once more with half a batch at once. Raises where a worker died, so that
    Tune starts the trial again from its checkpoint.
    """
    from ray import tune

    job: TrialJob = config["job"].on_this_machine()

    room: list[str] = []  # in which the workers run now

    def send(message: Event | Room) -> None:
        if isinstance(message, Room):
            room[:] = [message.placement_group]
        else:
            tune.report({"event": encode(message), ROOM: room[:]})

    end = _run_unless_preempted(job, send)
    if end.outcome is TrialStatus.OUT_OF_MEMORY and _halve_micro_batch(job):
        end = _run_unless_preempted(job, send)
    send(end)


def _run_unless_preempted(job: TrialJob, send: SendOn) -> TrialEnded:
    """Run the group, again whenever a machine of it was taken back; returns the trial's end, which is not sent."""
    while (end := _run_group(job, send)).outcome is TrialStatus.PREEMPTED:
        send(end)
        send(TrialStarted(job.trial))
    return end


def _halve_micro_batch(job: TrialJob) -> bool:
    """Let the group continue with half a batch at once, where the recipe sets no micro-batch."""
    bucket = open_bucket(job.bucket) if job.bucket else None
    with (
        locked(job.folder / LOCK, f"trial {job.trial}", patience=PATIENCE),
        synced(bucket, f"trials/{job.trial}", job.folder),
    ):
        return halve_micro_batch(job.folder, job.workers) is not None


def _run_group(job: TrialJob, send: SendOn) -> TrialEnded:
    """Start the workers and pass on their events; returns the trial's end, which is not sent."""
    from ray.util.queue import Empty, Queue

    mailbox = Queue(actor_options={"num_cpus": 0})
    problems: list[Exception] = []
    group = threading.Thread(target=_fit, args=(_torch_trainer(job, mailbox), problems), daemon=True)
    group.start()
    end: TrialEnded | None = None
    while True:
        running = group.is_alive()  # before the mailbox, so that events at the very end are not missed
        try:
            event = mailbox.get(timeout=POLL_SECONDS)
        except Empty:
            if running:
                continue
            break
        if not isinstance(event, TrialEnded):
            send(event)
        elif end is None or end.outcome is TrialStatus.FAILED:  # a worker also fails when it loses another one
            end = event
    mailbox.shutdown()
    if problems and _is_preemption(problems[0]):
        return TrialEnded(job.trial, TrialStatus.PREEMPTED, TAKEN_BACK)
    if problems and (end is None or _lost_a_worker(problems[0])):
        raise problems[0]
    if end is None:
        raise RuntimeError("the workers ended without a word")
    return end


def _torch_trainer(job: TrialJob, mailbox: Any) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    resources = {"CPU": job.threads, "GPU": job.gpus}
    return TorchTrainer(
        _run_member,
        train_loop_config={"job": job, "mailbox": mailbox},
        scaling_config=ScalingConfig(
            num_workers=job.workers,
            use_gpu=bool(job.gpus),
            resources_per_worker={name: amount for name, amount in resources.items() if amount},
        ),
        run_config=RunConfig(
            name=f"{job.trial}-{uuid.uuid4().hex}",
            storage_path=job.scratch,
            # the driver is to hear of each; mypy reads the class of Ray Train's first version
            failure_config=FailureConfig(max_preemption_failures=0),  # type: ignore[call-arg]
        ),
    )


def _lost_a_worker(problem: Exception) -> bool:
    """Whether a worker died: the others then fail in the middle of a step, which is no fault of the trial."""
    failures = getattr(problem, "worker_failures", {}).values()
    return any(type(failure).__name__.startswith("WorkerHealthCheck") for failure in failures)


def _is_preemption(problem: Exception) -> bool:
    """Whether a machine of the group was taken back, as a spot node is."""
    if type(problem).__name__ == "PreemptionError":
        return True
    failures = getattr(problem, "worker_failures", {}).values()
    deaths = [getattr(failure, "health_check_failure", failure) for failure in failures]
    return any(getattr(death, "preempted", False) for death in deaths)


def _fit(trainer: Any, problems: list[Exception]) -> None:
    try:
        trainer.fit()
    except Exception as problem:
        problems.append(problem)


def _run_member(config: dict[str, Any]) -> None:
    """Run one worker of the group. Raises to end the group: the others wait for it in the middle of a step."""
    import ray.train
    from ray.util import get_current_placement_group

    job: TrialJob = config["job"].on_this_machine()
    send = config["mailbox"].put
    if ray.train.get_context().get_world_rank() == 0:
        if group := get_current_placement_group():
            config["mailbox"].put(Room(group.id.hex()))
        if not _run_first(job, send).is_final:
            raise RuntimeError("the trial has ended")
        return
    settled, trained = _from_first(None)
    try:
        if not trained:
            join_training(Recipe(**settled))  # this machine's folder may be older than the first worker's, or empty
    except Diverged:
        pass  # in the first worker too, which reports it
    except Exception as error:
        job.folder.mkdir(parents=True, exist_ok=True)
        send(TrialEnded(job.trial, **outcome_of_error(error, job.folder)))
        raise


def _run_first(job: TrialJob, send: Send) -> TrialStatus:
    """Run the first worker, which reports and scores; returns the trial's outcome."""
    outcome = TrialStatus.FAILED

    def send_and_note(event: Event) -> None:
        nonlocal outcome
        if isinstance(event, TrialEnded):
            outcome = event.outcome
        send(event)

    def training(recipe: Recipe, folder: Path, *others: Any) -> Recipe:
        _from_first((settle_recipe(recipe, folder, job.threads).model_dump(), is_trained(folder)))
        return train(recipe, folder, *others)

    run_trial(job, send_and_note, training)  # without energy: each worker could measure its own GPU only
    return outcome


def _from_first(start: tuple[dict[str, Any], bool] | None) -> tuple[dict[str, Any], bool]:
    """Send from the first worker to the others the recipe as its folder has it, and whether it has been trained.

    start: what to send, in the first worker; None in the others. The recipe crosses as plain values, as in TrialJob.
    """
    import torch.distributed

    values = [start]
    torch.distributed.broadcast_object_list(values)
    assert values[0] is not None
    return values[0]
