"""Load what an evaluation draws from into a generator: weights in a format, a guide, and which blocks are run."""

from collections.abc import Callable

from mpdit.data.dataset import Dataset
from mpdit.diffusion.denoiser import Denoiser
from mpdit.inference.block_influence import block_influences
from pipelines.scoring.cell import Evaluation
from pipelines.scoring.sample_generator import SampleGenerator


def load_networks(
    generator: SampleGenerator,
    evaluation: Evaluation,
    denoiser: Denoiser,
    guide: Denoiser | None,
    dataset: Callable[[], Dataset],
) -> None:
    """Load a denoiser and its guide as an evaluation asks for them.

    dataset: opens the data, where the blocks' influence is to be measured on it; it is the denoiser's own.
    """
    generator.load(denoiser, evaluation.weights)
    generator.load_guide(guide, evaluation.weights)
    depth = len(denoiser.network.blocks)
    generator.left_out = evaluation.blocks.left_out(depth, lambda: block_influences(denoiser, dataset()))
