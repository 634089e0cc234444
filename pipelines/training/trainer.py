"""Train one recipe in its folder: take steps, report, keep snapshots and checkpoints, and continue after a stop.

The folder is the run: `recipe.yaml`, `checkpoints/`, `ema/`, `log.txt`. Training the same folder again continues it.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast, broadcast_object_list
from torch import Tensor, nn

from mpdit.data.dataset import held_near
from mpdit.diffusion.denoiser import build_denoiser
from mpdit.diffusion.loss import DenoisingLoss
from mpdit.inference.compilation import compile_blocks
from mpdit.run_folder import EMA, RAW_WEIGHTS, write_weights
from mpdit.training.cadence import is_reported, is_snapshot
from mpdit.training.ema import thin_snapshots, write_snapshot
from mpdit.training.magnitude import matrices
from mpdit.training.step import BatchSampler, accumulate_gradient, apply_gradient, new_state
from pipelines.recipe import Recipe
from pipelines.training import checkpoint
from pipelines.training.measurements import LastStep, network_metrics, step_metrics
from pipelines.training.out_of_memory import explained_out_of_memory
from pipelines.training.processes import batch_slice, new_accelerator
from pipelines.training.state_tensors import load_state, state_tensors
from pipelines.training.training_folder import (
    CHECKPOINTS,
    LOG,
    is_trained,
    log_to,
    note_code,
    settle_recipe,
)

Report = Callable[[dict[str, Any]], None]
AtSnapshot = Callable[[int], None]  # called with the step, once its snapshot is on disk

LOSS_SUM = "loss_sum"  # its name in a checkpoint

log = logging.getLogger(__name__)


def no_action(_: object) -> None:
    """Do nothing at a report or at a snapshot."""


def train(
    recipe: Recipe, folder: Path, report: Report, threads: int | None = None, at_snapshot: AtSnapshot = no_action
) -> Recipe:
    """Train to the recipe's last step, from wherever the folder stands.

    Args:
        recipe: what to train.
        folder: where the run is or will be.
        report: called with {"step", "metrics"} before the first step (the magnitudes alone, step 0) and before each
            checkpoint. A run that is finished reports nothing.
        threads: how many to use where the recipe leaves it open.
        at_snapshot: called on the main process; see pipelines/scoring/rungs.py.

    Returns:
        The recipe with its runtime settled.

    Raises:
        Diverged: the training is no longer finite.
        OutOfMemory: a step did not fit.
        InputError: the folder holds another training.
    """
    recipe = settle_recipe(recipe, folder, threads)
    if not is_trained(folder):
        with log_to(folder / LOG):
            note_code(folder, recipe)
            Trainer(recipe, folder, report, at_snapshot).run()
    return recipe


def join_training(recipe: Recipe) -> None:
    """Take this process's part in a training that another process leads with `train`: nothing is read or written here.

    recipe: as settled by the leading process. Raises what `train` raises.
    """
    Trainer(recipe, Path(), no_action, no_action).run()  # only the main process uses its folder


class Trainer:
    """One process's part of a training: the state, and what is done with it.

    Every process calls every method alike; only the main process reports and writes. What a new kind of training
    changes has one place each: the loss `self.loss`, the gradient and its use `step`, the learning rate
    `learning_rate`, what is measured measurements.py, the optimiser `TrainingState` with state_tensors.py.
    """

    def __init__(self, recipe: Recipe, folder: Path, send: Report, at_snapshot: AtSnapshot) -> None:
        torch.set_num_threads(int(recipe.runtime.threads))
        self.recipe, self.folder, self.send, self.at_snapshot = recipe, folder, send, at_snapshot
        self.accelerator = new_accelerator(recipe)
        device = self.accelerator.device
        self.dataset = held_near(recipe.dataset, device)
        part = batch_slice(recipe.batch, self.accelerator)
        self.batches = BatchSampler(self.dataset, recipe.seed, recipe.batch, recipe.label_dropout, part, device)
        samples, micro_batch = part.stop - part.start, recipe.runtime.micro_batch
        self.micro_batch = samples if micro_batch == "auto" else min(samples, micro_batch)
        architecture, objective = recipe.architecture(self.dataset), recipe.prediction(self.dataset)
        self.denoiser = build_denoiser(architecture, objective, recipe.seed).to(device)
        self.state = new_state(self.denoiser, recipe.optimizer.betas, recipe.optimizer.name)
        self.loss: nn.Module = DenoisingLoss(self.denoiser)
        self.loss_sum = torch.zeros((), device=device)  # since `reported_step`
        self.last = LastStep([])
        self.first_step = self.reported_step = 0  # where this start begins, and the last report by cadence
        self.seconds_before = self.seconds = 0.0  # of training: before this start, and up to the last report
        self.started = time.monotonic()

    def run(self) -> None:
        """Train to the last step, from the newest checkpoint."""
        self.start()
        while self.state.step < self.recipe.steps:
            self.step()
            if self.is_last or is_snapshot(self.state.step):
                self.snapshot()
            if self.is_last or is_reported(self.state.step):
                self.report()
                self.checkpoint()
        self.finish()

    def start(self) -> None:
        """Get ready for the next step."""
        self.restore()
        if self.recipe.runtime.compile:
            self.compile()
        if self.accelerator.num_processes > 1 or self.accelerator.mixed_precision != "no":
            self.loss = self.accelerator.prepare(self.loss)  # which imports much, and else changes nothing
        if self.state.step == 0:
            self.report_start()
        self.started = time.monotonic()

    @property
    def is_last(self) -> bool:
        """Whether the last step was taken."""
        return self.state.step == self.recipe.steps

    def step(self) -> None:
        """Take one training step; nothing here waits for the device."""
        number = self.state.step + 1
        batch = self.batches.draw(number)
        is_measured = is_reported(number) or number == self.recipe.steps
        self.last = LastStep([w.clone() for w in matrices(self.denoiser).values()] if is_measured else [])
        with explained_out_of_memory(self.recipe, self.denoiser, self.micro_batch):
            loss = accumulate_gradient(self.loss, batch, self.micro_batch, self.recipe.runtime.precision)
        self.last.gradient_norm = apply_gradient(self.state, self.learning_rate(number), self.recipe.clip)
        self.loss_sum += loss

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, which the factors of mpdit/model/mup.py multiply."""
        return self.recipe.learning_rate.at(step, self.recipe.steps)

    def report_start(self) -> None:
        """Report the network before its first step. Raises Diverged."""
        metrics = network_metrics(self.state, self.dataset)
        if self.accelerator.is_main_process:
            self.send({"step": 0, "metrics": metrics})

    def report(self) -> None:
        """Report the steps since the last report. Raises Diverged.

        A last step that is no report of a longer training leaves the sum as it is, for that training's next report.
        """
        step = self.state.step
        total = self.accelerator.reduce(self.loss_sum, "mean")
        loss = float(total) / (step - self.reported_step)
        elapsed = time.monotonic() - self.started
        self.seconds = self.seconds_before + elapsed
        metrics = step_metrics(self.state, self.dataset, loss, self.last) | {
            "lr": self.learning_rate(step),
            "images_per_second": (step - self.first_step) * self.recipe.batch / elapsed,
            "training_seconds": self.seconds,
        }
        if self.accelerator.is_main_process:
            self.send({"step": step, "metrics": metrics})
        if is_reported(step):
            self.loss_sum.zero_()
            self.reported_step = step
        else:
            self.loss_sum.copy_(total)

    def snapshot(self) -> None:
        """Keep the tracked averages of this step, and call `at_snapshot`, whose time is no training time."""
        if self.accelerator.is_main_process:
            write_snapshot(self.folder / EMA, self.state.step, self.state.named_emas)
            paused = time.monotonic()
            self.at_snapshot(self.state.step)
            self.started += time.monotonic() - paused

    def checkpoint(self) -> None:
        """Write all that a later start needs to continue from this step; remove the snapshots that none needs."""
        if self.accelerator.is_main_process:
            facts = {
                "training_seconds": round(self.seconds, 3),
                "processes": self.accelerator.num_processes,
                "reported_step": self.reported_step,
            }
            tensors = state_tensors(self.state) | {LOSS_SUM: self.loss_sum}
            checkpoint.save(self.folder / CHECKPOINTS, checkpoint.Checkpoint(self.state.step, tensors, facts))
            oldest = checkpoint.steps(self.folder / CHECKPOINTS)[0]  # no later start goes back behind it
            thin_snapshots(self.folder / EMA, oldest)

    def restore(self) -> None:
        """Set every process's state to the newest sound checkpoint, if there is one.

        The main process alone reads its folder and sends the state to the others, whose folders may be on other
        machines and hold an older checkpoint or none.
        """
        processes = self.accelerator.num_processes
        saved = checkpoint.latest(self.folder / CHECKPOINTS) if self.accelerator.is_main_process else None
        step, facts = broadcast_object_list([saved.step, saved.facts] if saved else [0, {}])
        if step:
            if facts["processes"] != processes:
                text = "the run began in %d process(es) and continues in %d: its result will differ in the last digits"
                log.warning(text, facts["processes"], processes)
            load_state(self.state, step, saved.tensors if saved else None)
            if saved and LOSS_SUM in saved.tensors:
                self.loss_sum.copy_(saved.tensors[LOSS_SUM])
            broadcast(self.loss_sum)
            self.seconds_before = float(facts["training_seconds"])
        self.first_step = self.state.step
        self.reported_step = facts.get("reported_step", step)
        number, device = self.accelerator.process_index + 1, self.accelerator.device
        log.info("from step %d on %s, process %d of %d", self.state.step, device, number, processes)

    def compile(self) -> None:
        """Compile the network's blocks where that works; it is checked on the batch of the next step."""
        example, precision = self.batches.draw(self.state.step + 1), self.recipe.runtime.precision

        def gradients() -> list[Tensor]:
            accumulate_gradient(self.loss, example, self.micro_batch, precision)
            copies = [p.grad.clone() for p in self.denoiser.parameters() if p.grad is not None]
            self.denoiser.zero_grad()
            return copies

        with explained_out_of_memory(self.recipe, self.denoiser, self.micro_batch):
            one_pass = self.micro_batch == len(example)
            compile_blocks(self.denoiser, self.accelerator.device, gradients, one_pass=one_pass)

    def finish(self) -> None:
        """Write the weights after the last step, which mark the training as finished."""
        if self.accelerator.is_main_process:
            thin_snapshots(self.folder / EMA, self.recipe.steps)
            weights = dict(self.denoiser.named_parameters())
            write_weights(self.folder / EMA / RAW_WEIGHTS, weights, self.denoiser, self.state.step)
        self.accelerator.wait_for_everyone()
