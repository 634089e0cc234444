"""A finished run or a bundle on disk, and the model in it.

A run: `recipe.yaml`, `checkpoints/step-…/`, `ema/step-….safetensors`, `samples/….png`. A bundle: `recipe.yaml`,
`model.safetensors`. Each file of weights carries the network's architecture and objective in its header.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from safetensors import safe_open

from mpdit.diffusion.objectives.registry import objective_as_dict, objective_from
from mpdit.errors import input_error
from mpdit.model.architecture import architecture_from
from mpdit.model.old_designs import current_recipe
from mpdit.model.old_names import NAMES, current_name
from mpdit.training.ema import reconstruct

if TYPE_CHECKING:
    from torch import Tensor

    from mpdit.diffusion.denoiser import Denoiser

BUNDLE_WEIGHTS = "model.safetensors"
RECIPE = "recipe.yaml"
EMA = "ema"
PICTURES = "samples"
PROVENANCE = "provenance.json"
RAW_WEIGHTS = "raw.safetensors"  # the weights after the last step, beside the snapshots


def is_bundle(folder: Path) -> bool:
    """Whether the folder is what `mpdit best --export` writes; one for another size has no weights."""
    return (folder / BUNDLE_WEIGHTS).exists() or (folder / PROVENANCE).exists()


def check_weights(folder: Path) -> None:
    """Raise InputError for a bundle that is still to be trained."""
    if is_bundle(folder) and not (folder / BUNDLE_WEIGHTS).exists():
        raise input_error(f"{folder} has no weights yet: it is a recipe for another size", hint=f"mpdit train {folder}")


def write_weights(path: Path, weights: Mapping[str, Tensor], denoiser: Denoiser, step: int) -> None:
    """Write fp32 weights, with architecture, objective and step in the header; the file is complete or not there."""
    from safetensors.torch import save_file

    header = {
        "architecture": json.dumps(denoiser.network.architecture.as_dict()),
        "objective": json.dumps(objective_as_dict(denoiser.objective)),
        "step": str(step),
        "names": NAMES,
    }
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in weights.items()}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata=header)
    partial.replace(path)


def read_weights(path: Path) -> tuple[Denoiser, int]:
    """Read the denoiser that `write_weights` wrote, to the CPU, and its step."""
    from mpdit.diffusion.denoiser import Denoiser
    from mpdit.model.transformer import Transformer

    with safe_open(path, framework="pt") as file:
        header = file.metadata()
        stored = list(file.keys())
        weights = {current_name(name, header.get("names")): file.get_tensor(name) for name in stored}
    network = Transformer(architecture_from(json.loads(header["architecture"])))
    denoiser = Denoiser(network, objective_from(json.loads(header["objective"])))
    denoiser.load_state_dict(weights)
    return denoiser.eval(), int(header["step"])


def set_weights(denoiser: Denoiser, weights: Mapping[str, Tensor]) -> None:
    """Give a denoiser the weights of an EMA, normalised as the trained ones are."""
    from mpdit.model.layers import normalize_weights

    denoiser.load_state_dict(dict(weights))
    normalize_weights(denoiser)


def load(bundle_or_run: str | Path, ema: float | None = None) -> tuple[Denoiser, dict[str, Any]]:
    """Load the model of a bundle or of a finished run, ready to sample, and its recipe.

    Args:
        bundle_or_run: the folder.
        ema: σ_rel of the weights; None takes the recipe's own, 0 the raw weights. A bundle has one σ_rel only.

    Returns:
        The model, which maps (noisy images, σ, labels) to clean images, and the recipe as plain values.

    Raises:
        InputError: there is no model, or none of that σ_rel.
    """
    folder = Path(bundle_or_run)
    if not (folder / RECIPE).exists():
        raise input_error(f"{folder} is neither a bundle nor a run", given=folder, allowed=f"a folder with a {RECIPE}")
    check_weights(folder)
    recipe: dict[str, Any] = current_recipe(yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8")))
    own = float(recipe["ema"]["sigma_rel"])
    sigma_rel = own if ema is None else ema
    if is_bundle(folder):
        if sigma_rel != own:
            hint = "score the run that it came from: mpdit evaluate TRIAL --ema WIDTH"
            raise input_error(
                f"{folder} holds the weights of one EMA width only", given=sigma_rel, allowed=own, hint=hint
            )
        return read_weights(folder / BUNDLE_WEIGHTS)[0], recipe
    raw = folder / EMA / RAW_WEIGHTS
    if not raw.exists():
        raise input_error(f"the run in {folder} is not finished", hint=f"continue it, or wait for {raw.name}")
    denoiser, step = read_weights(raw)
    if sigma_rel:
        set_weights(denoiser, reconstruct(folder / EMA, [sigma_rel], step)[0])
    return denoiser, recipe
