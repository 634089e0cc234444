"""A recipe carried to another model size by µP's rules, and the bundle without weights that describes it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpdit.errors import input_error, nearest
from mpdit.model.architecture import SIZES
from mpdit.model.mup import rule
from mpdit.model.transformer import parameter_count
from mpdit.run_folder import BUNDLE_WEIGHTS, PROVENANCE, RECIPE
from pipelines.provenance import git_state, versions
from pipelines.recipe import Recipe
from pipelines.yaml_file import Document, validate, write_yaml

CARD = "README.md"


@dataclass(frozen=True)
class Transfer:
    """A recipe, the one for the other size, and warnings about the step between them."""

    source: Recipe
    target: Recipe
    warnings: list[str]

    @property
    def name(self) -> str:
        """The target as DiTs are named: B/4."""
        return _name(self.target)

    def as_dict(self) -> dict[str, Any]:
        """As provenance and `--json` show it."""
        return {"from": _name(self.source), "to": self.name, "warnings": self.warnings, "hidden_lr": self.hidden_lr}

    @property
    def hidden_lr(self) -> dict[str, float]:
        """The learning rate of the hidden matrices in source and target; all others have the recipe's own."""
        return {_name(recipe): float(f"{_hidden_lr(recipe):.4g}") for recipe in (self.source, self.target)}


def transfer(source: Recipe, size: str | None, patch: int | None) -> Transfer:
    """The recipe for another size or patch: `lr`, base width, EMA width and all the rest stay as they are.

    Raises InputError for a size or patch that cannot be, and for another width where `lr` belongs to the source's.
    """
    if size is not None and size not in SIZES:
        raise input_error(f"no model size {size!r}", given=size, nearest=nearest(size, SIZES), allowed=", ".join(SIZES))
    fields = source.model_dump()
    if size is not None:
        fields["model"] |= {"size": size, "width": None}
    if patch is not None:
        fields["model"]["patch"] = patch
    fields["runtime"] = {}
    target = validate(Recipe, Document(fields, f"--size {fields['model']['size']} --patch {fields['model']['patch']}"))
    target.architecture(target.facts)
    _check_rates_transfer(source, target)
    return Transfer(source, target, _warnings(source, target))


def _check_rates_transfer(source: Recipe, target: Recipe) -> None:
    here, there = source.model.shape[1], target.model.shape[1]
    if source.optimizer.parametrization == "sp" and here != there:
        raise input_error(
            f"a learning rate found under sp at width {here} does not hold at width {there}",
            given="optimizer.parametrization: sp",
            reason="under sp the best learning rate moves with the width; under mup it stays",
            hint="sweep with recipe.optimizer.parametrization=mup, under a new name, and export from there",
        )


def _warnings(source: Recipe, target: Recipe) -> list[str]:
    (depth, width, _), (new_depth, new_width, _) = source.model.shape, target.model.shape
    changes = [
        ("depth", depth, new_depth, "blocks"),
        ("attention heads", source.model.head_channels, target.model.head_channels, "channels each"),
        ("patch", source.model.patch, target.model.patch, "pixels"),
    ]
    found = [f"no rule covers {what}: from {a} to {b} {unit}" for what, a, b, unit in changes if a != b]
    smaller = [f"the target is narrower than the source: width {width} to {new_width}"] if new_width < width else []
    return found + smaller


def _name(recipe: Recipe) -> str:
    size = recipe.model.size if recipe.model.width is None else f"{recipe.model.size}({recipe.model.width})"
    return f"{size}/{recipe.model.patch}"


def _hidden_lr(recipe: Recipe) -> float:
    o = recipe.optimizer
    if o.parametrization == "sp":
        return o.lr
    normalised = recipe.model.chosen_design().weight_normalization
    return o.lr * rule("hidden", normalised, 1, o.base_width / recipe.model.shape[1]).rate


def export_transfer(moved: Transfer, result: dict[str, Any], output: Path, source: dict[str, Any]) -> Path:
    """The bundle of a model that is still to be trained: recipe, card, provenance; no weights.

    result and source: as `export` takes them, of the model that the recipe was found with.
    """
    output.mkdir(parents=True, exist_ok=True)
    (output / BUNDLE_WEIGHTS).unlink(missing_ok=True)  # an earlier bundle's
    write_yaml(output / RECIPE, moved.target.model_dump())
    provenance = {**source, "transfer": moved.as_dict(), "result": result, "git": git_state(), "versions": versions()}
    (output / PROVENANCE).write_text(json.dumps(provenance, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (output / CARD).write_text(_card(moved, result, output, source), encoding="utf-8")
    return output


def _card(moved: Transfer, result: dict[str, Any], output: Path, source: dict[str, Any]) -> str:
    target, o = moved.target, moved.target.optimizer
    dataset = target.dataset
    sizes = [f"{parameter_count(recipe.architecture(dataset)):,}" for recipe in (moved.source, target)]
    rates = "\n".join(f"| hidden matrices in {name} | {rate:g} |" for name, rate in moved.hidden_lr.items())
    rules = "its width is the source's, so no rate changes"
    if o.parametrization == "mup":
        rules = f"µP at base width {o.base_width} (`optimizer.parametrization: mup`, mpdit/model/mup.py)"
    warnings = "".join(f"- {warning}\n" for warning in moved.warnings)
    return f"""# {output.name}

**No weights yet**: the recipe of an MP-DiT {moved.name} ({target.model.modulation}, {sizes[1]} parameters),
carried over from {_name(moved.source)} ({sizes[0]} parameters), the winner of the sweep `{source["sweep"]}` (trial \
`{source["trial"]}`).

```
mpdit train {output}
```

## What was carried over

Everything but the size and the patch: the learning rate {o.lr:g} with its schedule, EMA width
σ_rel = {target.ema.sigma_rel:g}, {target.steps} steps of {target.batch} images, {target.model.modulation},
objective {target.objective.name}, seed {target.seed}. Rule: {rules}.

| learning rate of | value |
|---|---|
| inputs, readout, gains, embeddings | {o.lr:g} |
{rates}

## What to mind

{warnings}- the length of the training and the batch are kept, though a larger model may gain from more

## What it was found with

The source scored `{result["metric"]}` {result["value"]:.3f} ± {result["stderr"]:.3f} (noise floor \
{result["noise_floor"]:.3f}). That figure is the smaller model's own and says nothing of this one's.
"""
