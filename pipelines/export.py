"""Write a bundle: what is needed to use, judge and retrain one scored run."""

import json
from pathlib import Path
from typing import Any

from mpdit.errors import InputError
from mpdit.run_folder import (
    BUNDLE_WEIGHTS,
    EMA,
    PROVENANCE,
    RAW_WEIGHTS,
    RECIPE,
    read_weights,
    set_weights,
    write_weights,
)
from mpdit.training.ema import reconstruct
from pipelines.provenance import git_state, machine, versions
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Evaluation, evaluation_of
from pipelines.training.training_folder import read_code, read_recipe
from pipelines.yaml_file import write_yaml

CARD = "README.md"
CLASSES = {  # how a model card says which classes were asked for
    "as_data": "classes in the data's proportions",
    "balanced": "all classes equally often",
    "in_turn": "classes in turn",
}


def export(run: Path, result: dict[str, Any], output: Path, source: dict[str, Any]) -> Path:
    """The bundle of one scored cell of a run, in the folder `output`.

    result: the cell as `evaluate` reported it, with its "seeds" and their "mean" and "error" when there are several.
    source: what else the provenance holds (sweep, trial). Files of an earlier bundle are replaced.
    """
    recipe = read_recipe(run)
    width = float(result["params"]["ema.sigma_rel"])
    recipe = recipe.model_copy(update={"ema": recipe.ema.model_copy(update={"sigma_rel": width})})
    denoiser, step = read_weights(run / EMA / RAW_WEIGHTS)
    if width:
        set_weights(denoiser, reconstruct(run / EMA, [width], step)[0])
    output.mkdir(parents=True, exist_ok=True)
    write_weights(output / BUNDLE_WEIGHTS, dict(denoiser.named_parameters()), denoiser, step)
    write_yaml(output / RECIPE, recipe.model_dump())
    provenance = {
        **source,
        "result": result,
        "seed": recipe.seed,
        "class_names": _class_names(recipe),
        "training_code": read_code(run),
        "git": git_state(),
        "versions": versions(),
        "machine": machine(recipe.runtime.device),
    }
    (output / PROVENANCE).write_text(json.dumps(provenance, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    parameters = sum(parameter.numel() for parameter in denoiser.parameters())
    (output / CARD).write_text(_card(recipe, result, parameters, str(output), source), encoding="utf-8")
    return output


def bundle_evaluation(bundle: Path) -> Evaluation:
    """The evaluation that a bundle's figures were measured with."""
    params = json.loads((bundle / PROVENANCE).read_text(encoding="utf-8"))["result"]["params"]
    return evaluation_of(params)


def bundle_compiled(bundle: Path) -> bool:
    """Whether a bundle's figures were measured with a compiled network: they differ from others by rounding."""
    provenance = json.loads((bundle / PROVENANCE).read_text(encoding="utf-8"))["result"]["provenance"]
    return bool(provenance.get("compiled"))


def _images(count: int | None) -> str:
    return "an unknown number" if count is None else f"{count:,}"


def _kind(params: dict[str, Any], path: str, default: str = "") -> str:
    """A kind in a cell's parameters with its settings, as `heun, churn 40`."""
    settings = [f"{name.rpartition('.')[2]} {value}" for name, value in params.items() if name.startswith(f"{path}.")]
    return ", ".join([str(params.get(path, default)), *settings])


def _guided_by(facts: dict[str, Any]) -> str:
    """What of a cell's provenance names its guide, as text."""
    if "guide" not in facts:
        return ""
    guide = facts["guide"]
    weights = f"at σ_rel = {guide['sigma_rel']} and step {guide['step']}" if guide["sigma_rel"] else "as they ended"
    return f" by the weights of its own training {weights}, which are not in this bundle"


def _class_names(recipe: Recipe) -> tuple[str, ...]:
    """The names of the data's classes: none where it has none, or is not here any more."""
    try:
        return recipe.dataset.class_names
    except InputError:
        return ()


def class_names(folder: Path) -> tuple[str, ...]:
    """The names of the classes that the model in a run or a bundle knows, by number; empty where they have none."""
    path = folder / PROVENANCE
    kept = json.loads(path.read_text(encoding="utf-8")).get("class_names") if path.exists() else None
    return _class_names(read_recipe(folder)) if kept is None else tuple(kept)


def _card(recipe: Recipe, result: dict[str, Any], parameters: int, name: str, source: dict[str, Any]) -> str:
    p, facts = result["params"], result["provenance"]
    model, runtime = recipe.model, recipe.runtime
    accuracy = facts.get("extractor_accuracy")
    classifier = f" classifier (held-out accuracy {accuracy:.1%})" if accuracy else " network"
    error = result["stderr"]
    seeds = ""
    if len(result.get("seeds", [])) > 1:
        seeds = f"| mean over seeds {result['seeds']} | {result['mean']:.3f} ± {result['error']:.3f} |\n"
    classes = CLASSES[p.get("evaluation.classes", "in_turn")]
    if "confirmed" in result:
        within = result["confirmed_interval"]
        around = f" ± {within:.3f} (95 % interval)" if within is not None else ""
        seeds += f"| the same on fresh noise, which did not choose it | {result['confirmed']:.3f}{around} |\n"
    changed = f" Then {source['winner_changed']}." if source.get("winner_changed") else ""
    tied = source.get("tied", 0)
    doubt = f" {tied} other cells of the sweep cannot be told from it at these errors." if tied else ""
    return f"""# {Path(name).name}

An MP-DiT ({model.size}, patch {model.patch}, {model.modulation}, {parameters:,} parameters) trained on \
`{recipe.data.title}` for {recipe.steps} steps of {recipe.batch} images,
chosen in the sweep `{source["sweep"]}` (trial `{source["trial"]}`).{doubt}{changed}

## Figures

| what | value |
|---|---|
| `{result["metric"]}` (Fréchet distance, lower is better) | {result["value"]:.3f} ± {error:.3f} |
{seeds}| the same for a perfect model (noise floor) | {result["noise_floor"]:.3f} |
| magnitude drift (largest \\|ln M\\| over blocks; 0 is kept) | {result["magnitude_drift"]:.3f} |

How it was measured: {p["evaluation.samples"]:,} samples, {classes}, sampler `{_kind(p, "evaluation.sampler")}` with \
{p["evaluation.steps"]} steps (NFE {facts["nfe"]}), guidance scale {p["evaluation.guidance"]} \
({_kind(p, "evaluation.guidance_rule", "cfg")}){_guided_by(facts)}, noise seed \
{p["evaluation.seed"]}; weights averaged at σ_rel = {p["ema.sigma_rel"]} (post-hoc EMA; 0 would be the raw weights); \
features of the `{facts["extractor"]}`{classifier} ({facts["extractor_weights"][:19]}…) against the statistics \
of {_images(facts["reference_count"])} real images \
({facts["reference"][:19]}…). The ± is the standard error over the samples of this one training; another training \
seed moves the value by more.

## Use

```python
import mpdit
model, recipe = mpdit.load("{name}")
# model(images (batch, channels, height, width), σ (batch,), classes (batch,) int64) → clean images;
# the class model.no_class asks for none
```

```
mpdit sample {name} -o grid.png
mpdit train {name}                        # trains it again: {runtime.threads} thread(s), \
{runtime.precision}, compile {str(runtime.compile).lower()}, on {runtime.device}
mpdit train {name} --set seed=1           # a sibling
```

`provenance.json` names the code, versions, machine, data and extractor behind these figures.
"""
