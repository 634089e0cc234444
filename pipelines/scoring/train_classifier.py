"""Train the classifier whose features score a data set: `python -m pipelines.scoring.train_classifier NAME`.

It learns from four fifths of the images (of at most 50,000), is tested on those that it never saw, and is written with
that accuracy and the hash of its weights beside it. The same seed gives the same weights on the same machine.
"""

import json
import logging
import sys
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from mpdit.data.dataset import Dataset
from mpdit.data.registry import load_dataset
from mpdit.errors import InputError, input_error
from mpdit.randomness import generator, sample_order
from mpdit.scoring.small_classifier import WEIGHTS, SmallClassifier, sha256

STEPS, BATCH, LEARNING_RATE, SEED = 1500, 128, 2e-3, 0
IMAGES, TESTED = 50_000, 10_000  # at most, to learn from and to test on

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


def train_classifier(dataset: Dataset, seed: int = SEED, steps: int = STEPS) -> tuple[SmallClassifier, float]:
    """The classifier and its accuracy on held-out images. Raises InputError for a set of fewer than two classes."""
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
    for step in range(steps):
        index = learn[sample_order(len(learn), seed, step * BATCH, BATCH)]
        seen = shifted(dataset.pixels(index), generator(seed, step, "extractor shift"))
        loss = F.cross_entropy(network.classify(network(seen)), dataset.labels[index], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network, accuracy(network, dataset, held_out)


@torch.inference_mode()
def accuracy(network: SmallClassifier, dataset: Dataset, index: Tensor) -> float:
    """The fraction of the images at `index` that are classified correctly."""
    right = 0
    for part in index.split(500):
        right += int((network.classify(network(dataset.pixels(part))).argmax(-1) == dataset.labels[part]).sum())
    return right / len(index)


def train_extractor(dataset: Dataset, folder: Path, seed: int = SEED, steps: int = STEPS) -> Path:
    """Train a classifier of the data and write NAME.safetensors and its card NAME.json into `folder`, the card last.

    Returns the weights' path; `load_extractor(NAME, folder)` reads it. Raises InputError for data without two
    classes.
    """
    network, held_out_accuracy = train_classifier(dataset, seed, steps)
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
