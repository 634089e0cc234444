"""Train the small classifier whose features score the digits: `python -m pipelines.extractor`.

It learns from four fifths of the 1,797 images, is tested on the fifth that it never saw, and is written with
that accuracy and the hash of its weights beside it. The same seed gives the same weights on the same machine.
"""

import hashlib
import json
import logging

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from mpdit.datasets import load_dataset, to_bytes
from mpdit.fidelity import WEIGHTS, DigitsFeatures
from mpdit.randomness import generator, sample_order

STEPS, BATCH, LEARNING_RATE, SEED = 1500, 128, 2e-3, 0


def split(count: int) -> tuple[Tensor, Tensor]:
    """Indices to learn from and indices held out, four to one, fixed for ever."""
    order = torch.randperm(count, generator=generator(SEED, 0, "extractor split"))
    return order[count // 5 :], order[: count // 5]


def shifted(images: Tensor, random: torch.Generator) -> Tensor:
    """Each image moved by −1, 0 or 1 pixel either way, the edge filled with background. (batch, 1, 8, 8)."""
    padded = F.pad(images, (1, 1, 1, 1))
    moves = torch.randint(0, 3, (len(images), 2), generator=random).tolist()
    return torch.stack([image[:, y : y + 8, x : x + 8] for image, (y, x) in zip(padded, moves, strict=True)])


def train_classifier() -> tuple[DigitsFeatures, float]:
    """The classifier and its accuracy on the held-out digits."""
    dataset = load_dataset("digits")
    images, labels = to_bytes(dataset.images), dataset.labels
    learn, held_out = split(len(dataset))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = DigitsFeatures()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        index = learn[sample_order(len(learn), SEED, step * BATCH, BATCH)]
        seen = shifted(images[index], generator(SEED, step, "extractor shift"))
        loss = F.cross_entropy(network.classify(network(seen)), labels[index], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network, accuracy(network, images[held_out], labels[held_out])


@torch.inference_mode()
def accuracy(network: DigitsFeatures, images: Tensor, labels: Tensor) -> float:
    """The share of uint8 images (count, 1, 8, 8) whose class is named right."""
    return float((network.classify(network(images)).argmax(-1) == labels).double().mean())


def main() -> None:
    """Train, and write the weights and their card into the package."""
    network, held_out_accuracy = train_classifier()
    path = WEIGHTS / "digits.safetensors"
    save_file(network.state_dict(), path)
    card = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "held_out_accuracy": round(held_out_accuracy, 4),
        "held_out_images": len(split(len(load_dataset("digits")))[1]),
        "made_by": "python -m pipelines.extractor",
    }
    (WEIGHTS / "digits.json").write_text(json.dumps(card, indent=2) + "\n")
    logging.getLogger(__name__).info("%s: %s", path, card)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
