"""Train the classifier whose features score a data set: `python -m pipelines.scoring.train_classifier NAME`.

It learns from four fifths of the images (of at most 50,000), is tested on those that it never saw, and is written with
that accuracy and the hash of its weights beside it. The same seed gives the same weights on the same machine.
"""

import json
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from mpdit.data.dataset import Dataset
from mpdit.data.registry import load_dataset
from mpdit.errors import InputError, input_error
from mpdit.randomness import generator, sample_order
from mpdit.scoring.frechet import distance_of_features
from mpdit.scoring.small_classifier import WEIGHTS, SmallClassifier, sha256

STEPS, BATCH, LEARNING_RATE, SEED = 1500, 128, 2e-3, 0
KEEP_EVERY = 50  # steps, the most that a killed training loses
HALVINGS, FEWEST_MIRRORED = 8, 40
IMAGES, TESTED = 50_000, 10_000  # at most, to learn from and to test on

Progress = Callable[[int, int], None] | None

log = logging.getLogger(__name__)


def split(count: int, seed: int = SEED) -> tuple[Tensor, Tensor]:
    """Indices to learn from and indices held out, four to one; a function of `count` and `seed` alone."""
    order = torch.randperm(count, generator=generator(seed, 0, "extractor split"))
    return order[count // 5 :][:IMAGES], order[: count // 5][:TESTED]


def shifted(images: Tensor, random: torch.Generator) -> Tensor:
    """Each image moved by −1, 0 or 1 pixel either way, the edge filled with zeros: (batch, channels, side, side)."""
    side = images.shape[-1]
    padded = F.pad(images, (1, 1, 1, 1))
    moves = torch.randint(0, 3, (len(images), 2), generator=random).tolist()
    return torch.stack([image[:, y : y + side, x : x + side] for image, (y, x) in zip(padded, moves, strict=True)])


def train_classifier(
    dataset: Dataset, seed: int = SEED, steps: int = STEPS, *, unfinished: Path | None = None, progress: Progress = None
) -> tuple[SmallClassifier, float]:
    """The classifier and its accuracy on held-out images. Raises InputError for a set of fewer than two classes.

    Args:
        dataset: what it learns to tell apart.
        seed: of the split, the order and the first weights.
        steps: of the training.
        unfinished: a file for what is learnt so far: stopped in any way, the same call goes on from it.
        progress: called with the steps that are done and their number.
    """
    if dataset.classes < 2 or len(dataset) < 10:
        raise input_error(
            f"no classifier can be trained on {dataset.name!r}",
            given=f"{len(dataset)} images in {dataset.classes} classes",
            allowed="10 labelled images or more, in 2 classes or more",
            hint="score it with --set evaluation.extractor=inception",
        )
    learn, held_out = split(len(dataset), seed)
    _, channels, resolution, _ = dataset.pixels(learn[:1]).shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallClassifier(channels, resolution, dataset.classes)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    state = TrainingState(network, optimizer, schedule, f"{dataset.fingerprint} {seed} {steps}")
    batch = min(BATCH, len(learn))
    for step in range(state.read(unfinished) if unfinished else 0, steps):
        index = learn[sample_order(len(learn), seed, step * batch, batch)]
        seen = shifted(dataset.pixels(index), generator(seed, step, "extractor shift"))
        loss = F.cross_entropy(network.classify(network(seen)), dataset.labels[index], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress:
            progress(step + 1, steps)
        if unfinished and (step + 1) % KEEP_EVERY == 0:
            state.write(unfinished, step + 1)
    if unfinished:
        unfinished.unlink(missing_ok=True)
    return network, accuracy(network, dataset, held_out)


class TrainingState:
    """What a training needs to go on: weights, AdamW's moments, the schedule; tensors and JSON in one file."""

    def __init__(
        self,
        network: SmallClassifier,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        of: str,
    ) -> None:
        self.network, self.optimizer, self.schedule, self.of = network, optimizer, schedule, of

    def write(self, path: Path, step: int) -> None:
        """Keep the state after so many steps."""
        moments = self.optimizer.state_dict()["state"]
        tensors = {f"moments.{at}.{name}": value for at, kept in moments.items() for name, value in kept.items()}
        tensors |= {f"network.{name}": value for name, value in self.network.state_dict().items()}
        plain = {"step": step, "schedule": self.schedule.state_dict(), "lr": self.optimizer.param_groups[0]["lr"]}
        path.parent.mkdir(parents=True, exist_ok=True)
        _whole(path, partial(save_file, tensors, metadata={"of": self.of, "plain": json.dumps(plain)}))

    def read(self, path: Path) -> int:
        """Take the state in the file up, and return its steps; 0 where there is none of the same training."""
        try:
            with safe_open(path, framework="pt") as file:
                if file.metadata()["of"] != self.of:
                    return 0
                plain = json.loads(file.metadata()["plain"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        except (OSError, SafetensorError, KeyError):
            return 0
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("moments."):
                _, at, what = name.split(".")
                moments.setdefault(int(at), {})[what] = value
        weights = {
            name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")
        }
        self.network.load_state_dict(weights)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.schedule.load_state_dict(plain["schedule"])
        self.optimizer.param_groups[0]["lr"] = plain["lr"]
        return int(plain["step"])


@torch.inference_mode()
def mirrored_distance(network: SmallClassifier, dataset: Dataset) -> float | None:
    """How far mirrored images are from a set: their Fréchet distance over that of two halves of the set itself.

    Half of the images against the other half, mirrored and as they are, in the classifier's features; the mean over
    HALVINGS. About 1 where left and right are alike; None for fewer than FEWEST_MIRRORED images.
    """
    count = min(len(dataset), TESTED)
    if count < FEWEST_MIRRORED:
        return None
    chosen = torch.randperm(len(dataset), generator=generator(SEED, 0, "mirrored"))[:count]
    parts = [dataset.pixels(part) for part in chosen.split(500)]
    plain, mirrored = (torch.cat([network(part) for part in side]) for side in (parts, [p.flip(-1) for p in parts]))
    found = []
    for at in range(HALVINGS):
        order = torch.randperm(count, generator=generator(SEED, at, "mirrored halves"))
        one, other = order[: count // 2], order[count // 2 :]
        found.append([distance_of_features(plain[one], side[other]) for side in (mirrored, plain)])
    far, near = torch.tensor(found, dtype=torch.float64).mean(0).tolist()
    return round(far / near, 3) if near > 0 else None


@torch.inference_mode()
def accuracy(network: SmallClassifier, dataset: Dataset, index: Tensor) -> float:
    """The fraction of the images at `index` that are classified correctly."""
    right = 0
    for part in index.split(500):
        right += int((network.classify(network(dataset.pixels(part))).argmax(-1) == dataset.labels[part]).sum())
    return right / len(index)


def train_extractor(
    dataset: Dataset, folder: Path, seed: int = SEED, steps: int = STEPS, *, progress: Progress = None
) -> Path:
    """Train a classifier of the data and write NAME.safetensors and its card NAME.json into `folder`, the card last.

    Returns the weights' path; `load_extractor(NAME, folder)` reads it. Stopped, the same call goes on. Raises
    InputError for data without two classes.
    """
    unfinished = folder / f"{dataset.name}.unfinished"
    network, held_out_accuracy = train_classifier(dataset, seed, steps, unfinished=unfinished, progress=progress)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{dataset.name}.safetensors"
    _whole(path, partial(save_file, {name: tensor.contiguous() for name, tensor in network.state_dict().items()}))
    card = {
        "sha256": sha256(path),
        "channels": network.first.in_channels,
        "resolution": dataset.pixels(torch.zeros(1, dtype=torch.int64)).shape[-1],
        "classes": dataset.classes,
        "held_out_accuracy": round(held_out_accuracy, 4),
        "held_out_images": len(split(len(dataset), seed)[1]),
        "mirrored": mirrored_distance(network, dataset),
        "data": dataset.fingerprint,
        "seed": seed,
        "made_by": "pipelines.scoring.train_classifier.train_extractor",
    }
    _whole(path.with_suffix(".json"), lambda partial: partial.write_text(json.dumps(card, indent=2) + "\n"))
    return path


def _whole(path: Path, write: object) -> None:
    assert callable(write)
    unfinished = path.with_name(path.name + ".partial")
    write(unfinished)
    unfinished.replace(path)


def main(name: str = "digits") -> int:
    """Train a data set's extractor into the package."""
    try:
        path = train_extractor(load_dataset(name), WEIGHTS)
    except InputError as problem:
        log.error("%s", problem)
        return 2
    log.info("%s: %s", path, path.with_suffix(".json").read_text())
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main(*sys.argv[1:]))
