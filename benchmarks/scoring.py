"""Scoring nine EMA widths of one run, ours and command by command: `python benchmarks/scoring.py [--json]`.

Ours is one command, `mpdit evaluate RUN --ema W,W,…`, from its start to its end; it takes as many processes as the
processor has room for, each with the threads that the run was trained with. The other side is what one does with
published tools for each width in turn: a command that reconstructs the weights, a command that samples them (the same
noise, sampler and steps), a command that gives both sets to torch-fidelity (whose reference statistics are cached
after the first). Then all three in a single command a width, which saves two starts. Ours is timed before and after
the other side, which can be timed on fewer widths, in proportion; and once more before that, when nothing is cached and
the network is compiled. On a machine that others use, processor time tells more than the clock. The distances of both
sides are compared. --parts adds what was chosen by measuring: folded or not, compiled or not, bf16, and several widths
at once with stacked weights.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

WIDTHS = (0.02, 0.03, 0.05, 0.07, 0.1, 0.13, 0.16, 0.2, 0.25)
SAMPLES, STEPS, BATCH, BAR = 2000, 12, 250, 5.0


def reconstruct_weights(run: Path, width: float, folder: Path) -> None:
    """One width of a run, as a file of weights."""
    from mpdit import load
    from mpdit.run_folder import write_weights

    denoiser, _ = load(run, width)
    write_weights(folder / "weights.safetensors", dict(denoiser.named_parameters()), denoiser, 0)


def sample_weights(_run: Path, _width: float, folder: Path) -> None:
    """Samples of a file of weights, as one array of bytes."""
    import numpy as np
    import torch

    from mpdit.data.dataset import to_bytes
    from mpdit.data.registry import load_dataset
    from mpdit.diffusion.samplers.registry import SAMPLERS
    from mpdit.diffusion.sampling import sample
    from mpdit.diffusion.sampling_options import SamplingOptions
    from mpdit.run_folder import read_weights
    from pipelines.scoring.cell import Evaluation
    from pipelines.scoring.sample_generator import draw_noise, sample_labels

    denoiser, _ = read_weights(folder / "weights.safetensors")
    digits, parts = load_dataset("digits"), []
    for first in range(0, SAMPLES, BATCH):
        noise = draw_noise(first, BATCH, torch.Size((1, 8, 8)), seed=0)
        options = SamplingOptions(SAMPLERS["dpm++2m"], STEPS)
        labels = sample_labels(digits, Evaluation(), first, BATCH)
        images = sample(denoiser, noise, labels, options, lambda _, noise=noise: noise)
        parts.append(to_bytes(images))
    np.save(folder / "samples.npy", torch.cat(parts).numpy())


def measure_samples(_run: Path, width: float, folder: Path) -> None:
    """torch-fidelity's distance of the samples to the digits, as its command takes it."""
    import numpy as np
    import torch
    import torch_fidelity
    from torch.utils.data import Dataset

    from mpdit.data.registry import load_dataset
    from mpdit.scoring.torch_fidelity_adapter import register_with_torch_fidelity

    class Images(Dataset):  # type: ignore[type-arg]
        def __init__(self, images: torch.Tensor) -> None:
            self.images = images

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, index: int) -> torch.Tensor:
            return self.images[index]

    digits = load_dataset("digits")
    found = torch_fidelity.calculate_metrics(
        input1=Images(torch.from_numpy(np.load(folder / "samples.npy"))),
        input2=Images(digits.pixels(torch.arange(len(digits)))),
        fid=True,
        cuda=False,
        cache_root=str(folder.parent / "fidelity-cache"),
        input2_cache_name="digits",
        verbose=False,
        feature_extractor=register_with_torch_fidelity("digits"),
    )
    (folder / "distance.json").write_text(json.dumps(found["frechet_inception_distance"]))


COMMANDS: dict[str, Callable[[Path, float, Path], None]] = {
    "reconstruct": reconstruct_weights,
    "sample": sample_weights,
    "measure": measure_samples,
}


Time = tuple[float, float]  # wall clock, and what all processes together took of the processors, in seconds


def now() -> Time:
    """The clock, and the processor time of all children so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), used.ru_utime + used.ru_stime


def since(started: Time) -> Time:
    """What has gone by."""
    wall, processor = now()
    return wall - started[0], processor - started[1]


def command_by_command(run: Path, width: float, folder: Path, groups: list[str]) -> Time:
    """The time of the commands for one width; each group of steps is a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    started = now()
    for group in groups:
        subprocess.run([sys.executable, __file__, "--do", group, str(run), str(width), str(folder)], check=True)
    return since(started)


def one_command(run: Path, widths: tuple[float, ...]) -> tuple[Time, list[float]]:
    """The time of ours, and its distances."""
    words = ["evaluate", str(run), "--ema", ",".join(map(str, widths)), "--samples", str(SAMPLES), "--json"]
    started = now()
    done = subprocess.run([sys.executable, "-m", "cli.main", *words], check=True, capture_output=True, text=True)
    return since(started), [line["value"] for line in json.loads(done.stdout)]


def mean_time(times: list[Time], count: int) -> Time:
    """What `count` of them take, in proportion."""
    wall, processor = (sum(part) / len(times) * count for part in zip(*times, strict=True))
    return wall, processor


def train_run(folder: Path) -> Path:
    """A run to score: 450 steps on the digits, by one thread, as a trial that shares the machine with others is."""
    from pipelines.recipe import Recipe
    from pipelines.training.trainer import train

    train(Recipe.model_validate({"steps": 450, "runtime": {"device": "cpu", "threads": 1}}), folder, lambda _line: None)
    return folder


def seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """The least of several times, after a first that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def parts(run: Path) -> dict[str, float]:
    """Microseconds for an image and network evaluation, each way of evaluating; and what bf16 does to the distance."""
    import torch

    from mpdit import load
    from mpdit.data.registry import load_dataset
    from mpdit.inference.folding import fold
    from mpdit.model import layers
    from pipelines.scoring.cell import Evaluation
    from pipelines.scoring.evaluation import measure
    from pipelines.scoring.reference import extractor_for, reference
    from pipelines.scoring.sample_generator import SampleGenerator, sample_labels

    layers._Normalize.generate_vmap_rule = True  # only stacking needs it
    plain = [load(run, width)[0] for width in WIDTHS[:4]]
    folded = [fold(denoiser) for denoiser in plain]
    compiled = SampleGenerator(plain[0], compiled=True).denoiser
    x, sigma, labels = torch.randn(BATCH, 1, 8, 8), torch.ones(BATCH), torch.arange(BATCH) % 10
    stacked, buffers = torch.func.stack_module_state(folded)

    def together(p: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(folded[0], (p, b), (x, sigma, labels))

    all_at_once = torch.vmap(together)
    with torch.inference_mode():
        times = {
            "plain": seconds(lambda: plain[0](x, sigma, labels)),
            "folded": seconds(lambda: folded[0](x, sigma, labels)),
            "folded and compiled": seconds(lambda: compiled(x, sigma, labels)),
            "folded, 4 widths stacked": seconds(lambda: all_at_once(stacked, buffers)) / 4,
        }
        with torch.autocast("cpu", torch.bfloat16):
            times["folded, bf16"] = seconds(lambda: folded[0](x, sigma, labels))
    found = {name: round(value / BATCH * 1e6, 1) for name, value in times.items()}
    digits = load_dataset("digits")
    against = reference(digits, extractor_for(digits, "auto"))
    values = []
    for precision in ("fp32", "bf16"):
        evaluation = Evaluation(samples=SAMPLES, steps=STEPS, precision=precision)
        generator = SampleGenerator(plain[3])
        drawn = [
            generator.draw(evaluation, first, sample_labels(digits, evaluation, first, BATCH))
            for first in range(0, SAMPLES, BATCH)
        ]
        images = torch.cat(drawn)
        values.append(measure(against.extractor.features(images), against, digits)["value"])
    return {**found, "bf16 moves the distance by %": round(100 * abs(values[1] / values[0] - 1), 3)}


def main() -> None:
    """Time both sides, and print them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--run", type=Path, help="a finished run on the digits; one is trained otherwise")
    parser.add_argument("--widths", type=int, default=len(WIDTHS), help="how many of the nine widths")
    parser.add_argument("--timed", type=int, default=len(WIDTHS), help="widths that the other side is timed on")
    parser.add_argument("--parts", action="store_true", help="also what each choice costs, in process")
    parser.add_argument("--do", nargs=4, metavar=("STEPS", "RUN", "WIDTH", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.do:
        for step in given.do[0].split("+"):
            COMMANDS[step](Path(given.do[1]), float(given.do[2]), Path(given.do[3]))
        return
    widths = WIDTHS[: given.widths]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["MPDIT_CACHE"] = str(folder / "cache")
        run = given.run or train_run(folder / "run")
        timed = widths[: given.timed]
        three, single = [], []
        cold, values = one_command(run, widths)
        first, _ = one_command(run, widths)
        for w in timed:
            three.append(command_by_command(run, w, folder / f"{w}", list(COMMANDS)))
            single.append(command_by_command(run, w, folder / f"{w}", ["+".join(COMMANDS)]))
        again, _ = one_command(run, widths)
        theirs = [json.loads((folder / f"{w}" / "distance.json").read_text()) for w in timed]
        ours = mean_time([first, again], 1)
        sides = {
            "one command, the machine's first": cold,
            "one command": first,
            "one command, again": again,
            "three commands a width": mean_time(three, len(widths)),
            "one command a width": mean_time(single, len(widths)),
        }
        ratios = {name: [round(a / b, 2) for a, b in zip(time, ours, strict=True)] for name, time in sides.items()}
        details: dict[str, object] = {
            "widths": len(widths),
            "seconds": {name: round(wall, 1) for name, (wall, _) in sides.items()},
            "processor seconds": {name: round(processor, 1) for name, (_, processor) in sides.items()},
            "ratio of processor seconds": ratios["three commands a width"][1],
            "ratio to one command a width": ratios["one command a width"],
            "largest difference of distances": max(abs(a / b - 1) for a, b in zip(values, theirs, strict=False)),
        }
        if given.parts:
            details["microseconds"] = parts(run)
    ratio = ratios["three commands a width"][0]
    if given.json:
        print(json.dumps({"name": "scoring", "device": "cpu", "ratio": ratio, "bar": BAR, "details": details}))
        return
    print(f"ratio {ratio}, bar {BAR}")
    print(json.dumps(details, indent=2))


if __name__ == "__main__":
    main()
