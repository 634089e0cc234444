"""A first sweep file with a comment on every line, from a few answers."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mpdit.errors import input_error
from pipelines.data.named_set import NamedSet, named_set
from pipelines.known_facts import DatasetFacts
from pipelines.recipe import Recipe
from pipelines.yaml_file import Document, parse_value
from sweeps.spec.model import SweepSpec
from sweeps.spec.reading import checked_spec, read_spec

SCHEMA_LINE = "# yaml-language-server: $schema="  # editors with the YAML language server check and complete the file
SCHEMA_FILE = "sweep.schema.json"
TOKENS_A_SIDE = {True: 8, False: 16}  # that a patch aims at: of pixels, of latents, whose pixels are patches already
IMAGES_A_STEP = 4  # a step of 128 for each 4 images: 32 epochs, within …
FEWEST_STEPS, MOST_STEPS = 300, 4000
COMMENTS_AT = 42  # characters
BRACKET = (0.25, 0.5, 1, 2, 4)  # times the default rate


@dataclass(frozen=True)
class Answers:
    """What a new sweep is asked for; lists are as they are written, with commas. None: what suits the data."""

    name: str = "mine"
    data: str = "digits"
    flips: bool | None = None
    size: str = "nano"
    steps: int | None = None
    modulations: str = "scale+shift+gate, rotation+gate"
    rates: str = ", ".join(f"{factor * Recipe().optimizer.lr:g}" for factor in BRACKET)
    widths: str = "0.03, 0.05, 0.1, 0.2"
    seeds: str = "0"


def completed(answers: Answers) -> Answers:
    """The answers with what suits the data in place of None. Raises InputError where there is no such data."""
    chosen = named_set(answers.data)
    if answers.flips is not None and not chosen.takes_flips:
        given = "--flips" if answers.flips else "--no-flips"
        raise input_error(f"{answers.data} cannot be mirrored as it is trained on", given=given, hint="leave it out")
    if answers.flips is None and chosen.takes_flips:
        answers = replace(answers, flips=chosen.flips)
    return answers if answers.steps else replace(answers, steps=_steps(_facts(chosen).count))


def sweep_text(answers: Answers, folder: Path) -> str:
    """The text of a file in that folder. The schema is looked for beside it: `mpdit schema > sweep.schema.json`."""
    answers, chosen = completed(answers), named_set(answers.data)
    facts = _facts(chosen)
    evaluation = "{samples: 2000, sampler: dpm++2m, steps: 12}"
    lines = [
        (f"name: {answers.name}", ""),
        ("recipe:", "what one training needs; unnamed fields take their defaults"),
        (f"  model: {{size: {answers.size}, patch: {_patch(facts)}}}", "nano, XS, S, B, L, XL"),
        (f"  data: {_data(chosen, answers, folder)}", _content(facts)),
        (f"  steps: {answers.steps}", ""),
        (f"  batch: {_batch(facts.count)}", "no more than there are images") if facts.count < Recipe().batch else None,
        ("axes:", "every combination of these"),
        (f"  model.modulation: [{answers.modulations}]", ""),
        (f"  optimizer.lr: [{answers.rates}]", "ends around the best: `mpdit suggest` says where it is not"),
        (f"  seed: [{answers.seeds}]", "a repetition: merged, with an error") if answers.seeds.strip() != "0" else None,
        (f"  ema.sigma_rel: [{answers.widths}]", "post-hoc: costs no training"),
        ("objective: {metric: frechet, mode: min}", ""),
        (f"evaluation: {evaluation}", "")
        if not chosen.source or chosen.features
        else (
            f"evaluation: {evaluation[:-1]}, extractor: inception}}",
            "no features of its own: `mpdit data prepare` trains them",
        ),
        ("resources: {gpus_per_trial: auto, cpus_per_trial: 1}", "auto: one GPU if there is one"),
        ("# notify: {webhook: $MY_WEBHOOK}", "told when it ends, when a trial fails, when a new best is found"),
    ]
    text = "\n".join(f"{code:<{COMMENTS_AT - 2}}  # {why}" if why else code for code, why in filter(None, lines))
    return (
        f"{SCHEMA_LINE}{SCHEMA_FILE}\n"
        f"# mpdit plan FILE says what this will do and cost; mpdit sweep FILE does it, and continues it.\n{text}\n"
    )


def write_sweep_file(path: Path, answers: Answers) -> SweepSpec:
    """Write the file and return its spec. Raises InputError, and writes nothing, for answers that cannot be used."""
    if path.exists():
        raise input_error(f"{path} is there already", given=path, hint="give another FILE")
    text = sweep_text(answers, path.parent)
    try:
        data: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise input_error(f"{path} is not written: an answer is not YAML", reason=error) from None
    path.parent.mkdir(parents=True, exist_ok=True)  # `..` leads out of no folder that is not there
    # a message names no line of a file that is not there; the folder is what relative paths begin from
    spec = checked_spec(Document(data, f"{path} is not written"), [])
    spec.recipe.architecture(spec.recipe.facts)
    path.write_text(text, encoding="utf-8")
    return read_spec(path)


def quick_document(name: str, data: str, steps: int | None, axes: Sequence[str]) -> Document:
    """The sweep of a command line without a file: patch, batch, steps and features suit the data.

    axes: each as `PATH=V,V,…`. Raises InputError for data that is not there and for an axis without values.
    """
    chosen = named_set(data)
    facts, answers = _facts(chosen), completed(Answers(data=data, steps=steps))
    recipe: dict[str, Any] = {"model": {"patch": _patch(facts)}, "data": dict(chosen.fields), "steps": answers.steps}
    if answers.flips is not None:
        recipe["data"]["flips"] = answers.flips
    if facts.count < Recipe().batch:
        recipe["batch"] = _batch(facts.count)
    fields: dict[str, Any] = {"name": name, "recipe": recipe, "axes": dict(map(_axis, axes))}
    if chosen.source and not chosen.features:
        fields["evaluation"] = {"extractor": "inception"}
    return Document(fields, "the command line")


def _axis(given: str) -> tuple[str, Any]:
    path, equals, text = given.partition("=")
    if not equals or not path or not text.strip():
        raise input_error(
            f"--axis {given!r} says no values", given=given, allowed="PATH=V,V,…, as optimizer.lr=0.03,0.1"
        )
    return path, parse_value(text if text.lstrip()[0] in "[{" else f"[{text}]")


def save_sweep_file(path: Path, document: Document) -> None:
    """Write a sweep of the command line as a file. Raises InputError where another file is there already."""
    fields = dict(document.data)
    data = dict(fields["recipe"]["data"])
    if "path" in data:
        relative = _path_from(data["path"], path.parent)  # a path with `..` in it would be read as another one
        data["path"] = str(Path(data["path"]).absolute()) if relative.startswith("..") else relative
    text = yaml.safe_dump({**fields, "recipe": {**fields["recipe"], "data": data}}, sort_keys=False, allow_unicode=True)
    text = f"{SCHEMA_LINE}{SCHEMA_FILE}\n{text}"
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise input_error(f"{path} is there already, and is another sweep", given=path, hint="give another --save")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _path_from(path: str, folder: Path) -> str:
    """A path as a file in that folder says it."""
    return path if Path(path).is_absolute() else os.path.relpath(path, folder)


def _facts(chosen: NamedSet) -> DatasetFacts:
    here = {"path": str(Path(chosen.fields["path"]).absolute())} if "path" in chosen.fields else {}
    return Recipe.model_validate({"data": chosen.fields | here}).facts


def _patch(facts: DatasetFacts) -> int:
    """The patch with about TOKENS_A_SIDE tokens a side, of those that divide the resolution; 1 only where none does."""
    side, wanted = facts.resolution, TOKENS_A_SIDE[facts.is_pixels]
    divisors = [patch for patch in range(2, side) if side % patch == 0]
    return min(divisors, key=lambda patch: abs(math.log(side / patch / wanted)), default=1)


def _steps(count: int) -> int:
    steps = min(max(count / IMAGES_A_STEP, FEWEST_STEPS), MOST_STEPS)
    return round(steps / 50) * 50


def _batch(count: int) -> int:
    """The largest power of two that is no more than the images."""
    return 1 << (count.bit_length() - 1)


def _data(chosen: NamedSet, answers: Answers, folder: Path) -> str:
    fields = dict(chosen.fields)
    if "path" in fields:
        fields["path"] = _path_from(fields["path"], folder)
    if answers.flips is not None:
        fields["flips"] = answers.flips
    return "{" + ", ".join(f"{key}: {_scalar(value)}" for key, value in fields.items()) + "}"


def _scalar(value: Any) -> str:
    """A value in a flow mapping; a text that YAML would read otherwise is quoted."""
    plain = isinstance(value, str) and all(sign.isalnum() or sign in "/._-" for sign in value)
    return value if plain and parse_value(value) == value else json.dumps(value, ensure_ascii=False)


def _content(facts: DatasetFacts) -> str:
    what = "images" if facts.is_pixels else "latents"
    shape = f"{facts.channels}×{facts.resolution}×{facts.resolution}"
    return f"{facts.count:,} {what} of {shape}, {facts.classes} class" + ("es" if facts.classes > 1 else "")
