"""Train the features that score the shapes: `python -m pipelines.scoring.train_shapes_classifier`.

A small classifier that also learns to tell where the shape is, how large, and of which colours: features that know the
class alone would forgive all else. It never sees a picture twice, is tested on pictures that it never saw, and sees
other sizes resized to its own.
"""

import json
import logging

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.data.shapes import NAMES, render, scene
from mpdit.scoring.small_classifier import WEIGHTS, SmallClassifier, sha256

RESOLUTION, STEPS, BATCH, LEARNING_RATE, SEED = 32, 2500, 128, 2e-3, 0
TESTED = 10_000
FIRST = 10**9  # the first picture that is learned from; the tested ones come before it
DESCRIBED = 9  # numbers told of a scene

log = logging.getLogger(__name__)


def described(index: Tensor) -> Tensor:
    """Place, size and colours of the pictures at (batch,) indices, about as large as each other: (batch, 9)."""
    seen = scene(index)
    place = torch.stack([seen.x, seen.y, 4 * (seen.size - 0.5)], dim=1)
    return torch.cat([place, 2 * seen.shape - 1, 4 * seen.ground - 1], dim=1).float()


def train() -> tuple[SmallClassifier, nn.Linear]:
    """The classifier, and the layer that tells the rest from its features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network, tell = SmallClassifier(3, RESOLUTION, len(NAMES)), nn.Linear(64, DESCRIBED)
    optimizer = torch.optim.AdamW([*network.parameters(), *tell.parameters()], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        index = torch.arange(BATCH) + FIRST + step * BATCH
        features = network(render(index, RESOLUTION))
        loss = F.cross_entropy(network.classify(features), index % len(NAMES), label_smoothing=0.05)
        loss = loss + F.mse_loss(tell(features), described(index))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            log.info("step %d: loss %.3f", step, loss.detach())
    return network, tell


@torch.inference_mode()
def tested(network: SmallClassifier, tell: nn.Linear) -> tuple[float, list[float]]:
    """Measure on unseen pictures: the share of right classes, and the share of each number's variance explained."""
    index = torch.arange(FIRST - TESTED, FIRST)
    features = torch.cat([network(render(part, RESOLUTION)) for part in index.split(500)])
    right = (network.classify(features).argmax(-1) == index % len(NAMES)).double().mean()
    wanted = described(index)
    told = 1 - (tell(features) - wanted).square().mean(0) / wanted.var(0)
    return float(right), told.tolist()


def main() -> None:
    """Train, and write the weights and their card into the package."""
    network, tell = train()
    accuracy, told = tested(network, tell)
    path = WEIGHTS / "shapes.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    card = {
        "sha256": sha256(path),
        "channels": 3,
        "resolution": RESOLUTION,
        "resizes": True,
        "classes": len(NAMES),
        "held_out_accuracy": round(accuracy, 4),
        "held_out_images": TESTED,
        "told_of_place_size_colours": [round(value, 3) for value in told],
        "data": None,
        "seed": SEED,
        "made_by": "python -m pipelines.scoring.train_shapes_classifier",
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    log.info("%s: %s", path, card)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
