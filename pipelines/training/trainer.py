"""The loop around mpdit/training/step.py: start or continue a run in its folder, report, checkpoint, finish.

The folder is the run: `recipe.yaml`, `checkpoints/`, `ema/`, `log.txt`. Training the same folder again continues it.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import broadcast, broadcast_object_list
from torch import Tensor

from mpdit.data.dataset import Dataset, held_near
from mpdit.diffusion.denoiser import Denoiser, build_denoiser
from mpdit.diffusion.loss import DenoisingLoss
from mpdit.errors import input_error
from mpdit.inference.compilation import compile_blocks
from mpdit.run_folder import EMA, RAW_WEIGHTS, RECIPE, write_weights
from mpdit.training.ema import snapshot_steps, write_snapshot
from mpdit.training.magnitude import (
    activation_magnitudes,
    gradient_magnitude,
    magnitude_drift,
    matrices,
    update_magnitudes,
    weight_magnitude,
)
from mpdit.training.step import Batch, TrainingState, accumulate, draw_batch, learning_rate, new_state, train_step
from pipelines.recipe import Recipe, resolve_runtime, trial_id
from pipelines.training import checkpoint
from pipelines.yaml_file import read_yaml, validate, write_yaml

Report = Callable[[dict[str, Any]], None]
AtSnapshot = Callable[[int], None]  # is told the step, once its snapshot is on disk
MAGNITUDE_LIMIT = 1e4  # a token magnitude beyond this is divergence even while the loss is finite

log = logging.getLogger(__name__)


class Diverged(Exception):
    """The training left the finite world: an outcome, not an error."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(f"diverged by step {step}: {reason}")
        self.step, self.reason = step, reason


class OutOfMemory(Exception):
    """A step did not fit into the device's memory; the message says what was tried and what to change."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: a device's or the machine's, which PyTorch tells in words on a CPU."""
    kinds = (OutOfMemory, MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def halve_micro_batch(folder: Path, processes: int = 1) -> int | None:
    """Let the run in this folder go on with half a batch at a time; None where the recipe has named a number itself."""
    kept = read_recipe(folder)
    half = kept.batch // processes // 2
    if kept.runtime.micro_batch != "auto" or not half:
        return None
    write_yaml(folder / RECIPE, _with_micro_batch(kept, half).model_dump())
    return half


def _with_micro_batch(recipe: Recipe, samples: Any) -> Recipe:
    return recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"micro_batch": samples})})


def is_trained(folder: Path) -> bool:
    """Whether the run in this folder has taken its last step."""
    return (folder / EMA / RAW_WEIGHTS).exists()


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file or in a run's or bundle's folder."""
    return validate(Recipe, read_yaml(path / RECIPE if path.is_dir() else path))


def settle_recipe(recipe: Recipe, folder: Path, threads: int | None = None) -> Recipe:
    """The recipe as this folder trains it: what was settled at its first start, or settled and written now.

    Raises InputError when the folder belongs to another training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / RECIPE).exists():
        kept = read_recipe(folder)
        if trial_id(kept.model_copy(update={"runtime": recipe.runtime})) != trial_id(recipe):
            there, asked = trial_id(kept), trial_id(recipe)
            raise input_error(
                f"{folder} holds another training", there=there, given=asked, hint="choose another --output"
            )
        if kept.runtime.device != "cuda" or torch.cuda.is_available():
            if recipe.runtime.micro_batch != "auto":  # it changes no result, and may have been chosen since
                kept = _with_micro_batch(kept, recipe.runtime.micro_batch)
            return kept.model_copy(update={"ema": recipe.ema})
        log.warning("the run began on a GPU and continues on a CPU: its result will differ in the last digits")
    settled = resolve_runtime(recipe, threads)
    write_yaml(folder / RECIPE, settled.model_dump())
    return settled


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """While open, what the four layers log goes to this file too."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    layers = [logging.getLogger(name) for name in ("mpdit", "pipelines", "sweeps")]
    for layer in layers:
        layer.addHandler(handler)
        layer.setLevel(logging.INFO)
    try:
        yield
    finally:
        for layer in layers:
            layer.removeHandler(handler)
        handler.close()


def fresh_accelerator(recipe: Recipe) -> Accelerator:
    """An Accelerator for this recipe, whatever an earlier run in this process asked for."""
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    AcceleratorState._reset_state(reset_partial_state=not several)  # its public twin resets only what one object made
    GradientState._reset_state()
    precision = {"fp32": "no", "bf16": "bf16"}[recipe.runtime.precision]
    return Accelerator(cpu=recipe.runtime.device == "cpu", mixed_precision=precision)


def no_rungs(step: int) -> None:
    """A training that nothing happens to at its snapshots."""


def train(
    recipe: Recipe, folder: Path, report: Report, threads: int | None = None, at_snapshot: AtSnapshot = no_rungs
) -> Recipe:
    """Train to the recipe's last step, from wherever the folder stands; returns the recipe with its runtime settled.

    report: called with {"step", "metrics"} before the first step (the magnitudes alone, step 0) and before each
    checkpoint. A run that is finished reports nothing. at_snapshot: called on the main process; see
    pipelines/scoring/rungs.py.
    Raises Diverged; InputError when the folder holds another training.
    """
    recipe = settle_recipe(recipe, folder, threads)
    if is_trained(folder):
        return recipe
    torch.set_num_threads(int(recipe.runtime.threads))
    with log_to(folder / "log.txt"):
        _run(recipe, folder, report, at_snapshot)
    return recipe


def train_along(recipe: Recipe) -> None:
    """Train beside the process that calls `train`, with its settled recipe: nothing is read or written here.

    Raises Diverged, as `train` does.
    """
    torch.set_num_threads(int(recipe.runtime.threads))
    _run(recipe, Path(), lambda _: None, no_rungs)  # only the main process looks into its folder


def _run(recipe: Recipe, folder: Path, report: Report, at_snapshot: AtSnapshot) -> None:
    accelerator = fresh_accelerator(recipe)
    device = accelerator.device
    dataset = held_near(recipe.dataset, device)
    share = _share(recipe.batch, accelerator)
    denoiser = build_denoiser(recipe.architecture(dataset), recipe.prediction(dataset), recipe.seed).to(device)
    state = new_state(denoiser, (recipe.optimizer.beta1, recipe.optimizer.beta2))
    seconds = _restore(state, folder, accelerator)
    number, count = accelerator.process_index + 1, accelerator.num_processes
    log.info("from step %d on %s, process %d of %d", state.step, device, number, count)

    def draw(step: int) -> Batch:
        return draw_batch(dataset, recipe.seed, step, recipe.batch, recipe.label_dropout, share, device)

    gradient_of = _gradient(recipe, accelerator, denoiser, draw(state.step + 1))
    snapshots = set(snapshot_steps(recipe.steps))
    losses = torch.zeros((), device=device)
    first, last_report = state.step, state.step
    if state.step == 0:
        new = _magnitudes(state, dataset)
        if accelerator.is_main_process:
            report({"step": 0, "metrics": new})
    started = time.monotonic()
    while state.step < recipe.steps:
        step = state.step + 1
        batch = draw(step)
        reported = step % recipe.report_every == 0 or step == recipe.steps
        before = [weight.clone() for weight in matrices(denoiser).values()] if reported else []
        losses += train_step(state, partial(gradient_of, batch), _learning_rate(recipe, step), recipe.clip)
        if state.step in snapshots and accelerator.is_main_process:
            write_snapshot(folder / EMA, state.step, state.named_averages)
            paused = time.monotonic()
            at_snapshot(state.step)
            started += time.monotonic() - paused  # scoring is no training
        if reported:
            mean_loss = float(accelerator.reduce(losses, "mean")) / (state.step - last_report)
            elapsed = time.monotonic() - started
            metrics = _measure(state, dataset, mean_loss, before) | {
                "lr": _learning_rate(recipe, step),
                "images_per_second": (state.step - first) * recipe.batch / elapsed,
                "training_seconds": seconds + elapsed,
            }
            if accelerator.is_main_process:
                report({"step": state.step, "metrics": metrics})
                _save(state, folder, {"training_seconds": round(seconds + elapsed, 3), "processes": count})
            losses.zero_()
            last_report = state.step
    if accelerator.is_main_process:
        write_weights(folder / EMA / RAW_WEIGHTS, dict(denoiser.named_parameters()), denoiser, state.step)
    accelerator.wait_for_everyone()


def _share(batch: int, accelerator: Accelerator) -> slice:
    """This process's part of the global batch. Raises InputError where it cannot be shared."""
    processes = accelerator.num_processes
    if batch % processes:
        raise input_error(f"a batch of {batch} cannot be shared by {processes} processes", given=batch)
    size = batch // processes
    return slice(accelerator.process_index * size, (accelerator.process_index + 1) * size)


def _gradient(
    recipe: Recipe, accelerator: Accelerator, denoiser: Denoiser, example: Batch
) -> Callable[[Batch], Tensor]:
    """The way to the gradient of one process's share: compiled if so settled, in micro-batches that fit."""
    share, settled = len(example), recipe.runtime.micro_batch
    micro_batch = share if settled == "auto" else min(share, settled)
    bare = DenoisingLoss(denoiser)

    def loss_by(module: torch.nn.Module, part: Batch) -> Tensor:
        with accelerator.autocast():
            return module(part.images, part.labels, part.noise)

    def within_memory(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(_what_did_not_fit(recipe, denoiser, micro_batch)) from error

    if recipe.runtime.compile:

        def gradients() -> list[Tensor]:
            accumulate(partial(loss_by, bare), example, micro_batch, Tensor.backward)
            found = [p.grad.clone() for p in denoiser.parameters() if p.grad is not None]
            denoiser.zero_grad()
            return found

        within_memory(partial(compile_blocks, denoiser, accelerator.device, gradients, one_pass=micro_batch == share))
    wrapped = accelerator.prepare(bare)

    def gradient(batch: Batch) -> Tensor:
        alone = partial(accelerator.no_sync, wrapped)
        return within_memory(
            partial(accumulate, partial(loss_by, wrapped), batch, micro_batch, accelerator.backward, alone)
        )

    return gradient


def _what_did_not_fit(recipe: Recipe, denoiser: Denoiser, micro_batch: int) -> str:
    millions = sum(p.numel() for p in denoiser.parameters()) / 1e6
    model, runtime = f"{recipe.model.size}/{recipe.model.patch}", recipe.runtime
    return (
        f"out of memory on {runtime.device}: {model} with {millions:.1f} M parameters, {micro_batch} samples at once "
        f"in {runtime.precision}; set runtime.micro_batch: {max(1, micro_batch // 2)}, which does not change what is "
        "learned"
    )


def _learning_rate(recipe: Recipe, step: int) -> float:
    o = recipe.optimizer
    return learning_rate(step, recipe.steps, o.lr, o.schedule, o.warmup, o.decay_from)


def _measure(state: TrainingState, dataset: Dataset, loss: float, before: list[Tensor]) -> dict[str, float]:
    """The report's figures. Raises Diverged when one of them is not of this world.

    before: the matrices before the last step.
    """
    gradient = gradient_magnitude(state.denoiser)
    for name, value in (("loss", loss), ("gradient", gradient)):
        if not math.isfinite(value):
            raise Diverged(state.step, f"the {name} is {value}")
    metrics = {"loss": loss, "magnitude/gradients": gradient} | _magnitudes(state, dataset)
    moved = update_magnitudes(state.denoiser, before)
    return metrics | {f"magnitude/update/{name}": value for name, value in moved.items()}


def _magnitudes(state: TrainingState, dataset: Dataset) -> dict[str, float]:
    """What is reported of the network as it stands, also before the first step. Raises Diverged."""
    magnitudes = activation_magnitudes(state.denoiser, dataset)
    for mean, _ in magnitudes.values():
        if not mean <= MAGNITUDE_LIMIT:
            raise Diverged(state.step, f"a token magnitude of {mean:.3g}")
    drift, weights = magnitude_drift(magnitudes), weight_magnitude(state.denoiser)
    metrics = {"magnitude_drift": drift, "magnitude/weights": weights}
    for place, (mean, std) in magnitudes.items():
        metrics |= {f"magnitude/{place}/mean": mean, f"magnitude/{place}/std": std}
    return metrics


def _tensors(state: TrainingState) -> dict[str, Tensor]:
    """All tensors of a state by the names that they have in a checkpoint."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in state.denoiser.named_parameters():
        tensors[f"weights/{name}"] = parameter.detach()
        for key, value in state.optimizer.state[parameter].items():
            tensors[f"adam/{key}/{name}"] = value
    for index, average in enumerate(state.named_averages):
        tensors |= {f"average{index}/{name}": tensor for name, tensor in average.items()}
    return tensors


def _save(state: TrainingState, folder: Path, facts: dict[str, Any]) -> None:
    checkpoint.save(folder / "checkpoints", checkpoint.Checkpoint(state.step, _tensors(state), facts))


def _restore(state: TrainingState, folder: Path, accelerator: Accelerator) -> float:
    """Bring every process's state to the newest sound checkpoint; returns the seconds of training behind it.

    Only the main process looks into the folder, and tells the others: on a machine of its own, another may find an
    older one there, or one that was never sent.
    """
    found = checkpoint.latest(folder / "checkpoints") if accelerator.is_main_process else None
    step, facts = broadcast_object_list([found.step, found.facts] if found else [0, {}])
    if not step:
        return 0.0
    if facts["processes"] != accelerator.num_processes:
        log.warning(
            "the run began in %d process(es) and continues in %d: its result will differ in the last digits",
            facts["processes"],
            accelerator.num_processes,
        )
    state.step = step
    for parameter in state.denoiser.parameters():
        moments = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
        state.optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device)} | moments
    tensors = _tensors(state)
    for name, tensor in tensors.items():
        if found:
            tensor.copy_(found.tensors[name])
    broadcast(tensors)  # in place
    return float(facts["training_seconds"])


def is_main_process() -> bool:
    """Whether this process scores and prints: the only one, or the first of several."""
    return bool(PartialState().is_main_process)


def training_seconds(folder: Path) -> float:
    """How long a run has trained, over all its starts."""
    return float(checkpoint.facts(folder / "checkpoints").get("training_seconds", 0.0))
