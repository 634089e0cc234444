"""Search a run's noise levels: `python -m pipelines.studies.search_schedule RUN --steps 8 [--set guidance=2]`.

Prints levels for `evaluation.schedule`, and how far images of them and of the default ones lie from the teacher's, on
the noise that they were searched on and on other noise: levels that win on the first alone are worth nothing. What is
searched belongs to the run, the EMA width and the guidance. GITS, arXiv 2405.11326.
"""

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpdit.data.dataset import Dataset
from mpdit.diffusion.samplers.registry import Denoise
from mpdit.diffusion.sampling import guided
from mpdit.diffusion.sampling_schedules.listed import Listed
from mpdit.diffusion.schedule_search import Trajectories, best_path, follow, jump_costs
from mpdit.errors import InputError, input_error
from mpdit.run_folder import load
from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.networks.asked import check_networks
from pipelines.scoring.networks.guides import Guides
from pipelines.scoring.networks.loading import load_networks
from pipelines.scoring.sample_generator import SampleGenerator, draw_noise, sample_labels
from pipelines.training.training_folder import read_recipe
from pipelines.yaml_file import Document, apply_settings, validate

TEACHER_STEPS, TRAJECTORIES = 60, 256


@dataclass(frozen=True)
class Teacher:
    """What is drawn from: the networks of an evaluation, and the data that give the classes."""

    generator: SampleGenerator
    evaluation: Evaluation
    dataset: Dataset

    def start(self, seed: int, count: int) -> tuple[Denoise, Tensor]:
        """The guided network of some classes, and standard normal noise for them."""
        a = self.generator.architecture
        asked = self.evaluation.model_copy(update={"seed": seed})
        labels = sample_labels(self.dataset, asked, 0, count).to(self.generator.device)
        noise = draw_noise(0, count, torch.Size((a.channels, a.resolution, a.resolution)), seed)
        guide = self.generator.guide
        denoise = guided(self.generator.denoiser, labels, self.evaluation.sampling.guidance, guide)
        return denoise, noise.to(self.generator.device)

    def trajectories(self, seed: int) -> Trajectories:
        """What it goes through from the noise of a seed."""
        levels = self.own(TEACHER_STEPS)
        denoise, noise = self.start(seed, TRAJECTORIES)
        return follow(denoise, noise * levels[0], levels)

    def own(self, steps: int) -> list[float]:
        """The objective's levels."""
        levels: list[float] = self.generator.denoiser.objective.noise_schedule(steps).tolist()
        return levels


@torch.inference_mode()
def search(run: Path, steps: int, evaluation: Evaluation, width: float | None = None) -> dict[str, Any]:
    """Search the levels of so many steps, and compare them with the default ones.

    Returns {"sigmas": the levels, without the 0 at the end, "searched_on": {"default": …, "searched": …},
    "other_noise": the same}: mean root mean square distances of images, drawn by the evaluation's sampler, from the
    teacher's.
    """
    if not 1 <= steps < TEACHER_STEPS:
        raise input_error(
            "there are levels for fewer steps than the teacher's", given=steps, allowed=f"1 to {TEACHER_STEPS - 1}"
        )
    recipe = read_recipe(run)
    check_networks(recipe, evaluation)
    torch.set_num_threads(int(recipe.runtime.threads))
    denoiser, _ = load(run, width)
    cell = Cell(recipe.ema.sigma_rel if width is None else width, evaluation)
    generator, guide = SampleGenerator(denoiser), Guides(run, [cell]).of(cell)
    load_networks(generator, evaluation, denoiser, guide.denoiser if guide else None, lambda: recipe.dataset)
    teacher = Teacher(generator, evaluation, recipe.dataset)
    seeds = evaluation.seed, evaluation.seed + 1
    with generator.without_left_out():
        followed = [teacher.trajectories(seed) for seed in seeds]
        sigmas = tuple(followed[0].levels[at] for at in best_path(jump_costs(followed[0]), steps)[:-1])
        seen, other = (
            _distances(teacher, seed, one.states[-1], steps, sigmas) for seed, one in zip(seeds, followed, strict=True)
        )
    return {"sigmas": list(sigmas), "searched_on": seen, "other_noise": other}


def _distances(teacher: Teacher, seed: int, wanted: Tensor, steps: int, sigmas: tuple[float, ...]) -> dict[str, float]:
    """How far images of the default and of the searched levels lie from those that are wanted, of one noise."""
    denoise, noise = teacher.start(seed, len(wanted))
    options = replace(teacher.evaluation.sampling, steps=steps)
    found = {}
    for name, asked in (("default", options), ("searched", replace(options, schedule=Listed(sigmas)))):
        levels = torch.tensor(asked.levels(teacher.own))
        drawn = asked.sampler.draw(denoise, noise * levels[0], levels, lambda _step: torch.randn_like(noise))
        found[name] = float((drawn - wanted).square().mean((1, 2, 3)).sqrt().mean())
    return found


def main() -> None:
    """Print the levels, and what they are worth."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.studies.search_schedule", description=(__doc__ or "").split("`")[0]
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument("--steps", type=int, required=True, help="how many")
    parser.add_argument("--ema", type=float, help="EMA width; the recipe's own by default")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="of the evaluation")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    options = parser.parse_args()
    evaluation = validate(Evaluation, apply_settings(Document({}, "the options"), options.set))
    found = search(options.run, options.steps, evaluation, options.ema)
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    levels = ", ".join(f"{sigma:.4g}" for sigma in found["sigmas"])
    lines = [f"evaluation: {{schedule: {{sigmas: [{levels}]}}}}"]
    for where, name in (("searched_on", "on the noise that they were searched on"), ("other_noise", "on other noise")):
        lines.append(
            f"{name}: {found[where]['searched']:.4f} from the teacher, default levels {found[where]['default']:.4f}"
        )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    try:
        main()
    except InputError as problem:
        sys.stderr.write(f"{problem}\n")
        sys.exit(2)
