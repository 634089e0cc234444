"""All registries, and the page of the docs that lists what is in them: `python -m sweeps.kinds > docs/kinds.md`."""

import sys
from typing import Any

from mpdit.data.image_sources.registry import IMAGE_SOURCES
from mpdit.data.registry import DATASETS
from mpdit.diffusion.guidance_rules.registry import GUIDANCE_RULES
from mpdit.diffusion.objectives.registry import OBJECTIVES
from mpdit.diffusion.samplers.registry import SAMPLERS
from mpdit.diffusion.sampling_schedules.registry import SAMPLING_SCHEDULES
from mpdit.inference.block_choices.registry import BLOCK_CHOICES
from mpdit.inference.weight_formats.registry import WEIGHT_FORMATS
from mpdit.model.attention.registry import ATTENTIONS
from mpdit.model.mlp.registry import MLPS
from mpdit.model.modulation.registry import MODULATIONS
from mpdit.model.norm.registry import NORMS
from mpdit.model.positions.registry import POSITIONS
from mpdit.registry import Registry, needed_settings, settings_of
from mpdit.scoring.extractors.registry import EXTRACTORS
from mpdit.training.lr_schedules.registry import LR_SCHEDULES
from mpdit.training.optimizers.registry import OPTIMIZERS
from pipelines.scoring.metrics.registry import METRICS
from sweeps.advice.registry import ADVICE
from sweeps.spec.scheduler_kind import SCHEDULERS
from sweeps.spec.search_algorithm import SEARCHES
from sweeps.spec.tracking_views import VIEWS
from sweeps.storage.bucket import BUCKETS

REGISTRIES: dict[str, Registry[Any]] = {  # where a file, or a command, names them
    "`recipe.model.modulation`, joined by +": MODULATIONS,
    "`recipe.model.attention`": ATTENTIONS,
    "`recipe.model.mlp`": MLPS,
    "`recipe.model.positions`": POSITIONS,
    "`recipe.model.norm`": NORMS,
    "`recipe.objective`": OBJECTIVES,
    "`recipe.optimizer.name`": OPTIMIZERS,
    "`recipe.optimizer.schedule`": LR_SCHEDULES,
    "`recipe.data`": DATASETS,
    "`evaluation.sampler`": SAMPLERS,
    "`evaluation.schedule`": SAMPLING_SCHEDULES,
    "`evaluation.guidance_rule`": GUIDANCE_RULES,
    "`evaluation.blocks`": BLOCK_CHOICES,
    "`evaluation.weights`": WEIGHT_FORMATS,
    "`evaluation.extractor`": EXTRACTORS,
    "`objective.metric`, `constraints`, `evaluation.metrics`, `rank --by`": METRICS,
    "`search.algorithm`": SEARCHES,
    "`scheduler.kind`": SCHEDULERS,
    "what `mpdit suggest` says": ADVICE,
    "`tracking.view`": VIEWS,
    "the scheme of `--storage`": BUCKETS,
    "the source of `mpdit data prepare`": IMAGE_SOURCES,
}
HEAD = """\
# Kinds

What can be named in a sweep file, and where its code is: one file a kind. Written by `python -m sweeps.kinds`.
A name with a dot, as `example.mean`, is a plug-in's: [how to write one](../CONTRIBUTING.md#add-a-plug-in).
"""


def page() -> str:
    """The page, in Markdown."""
    return "\n".join([HEAD, *(_table(place, registry) for place, registry in REGISTRIES.items())])


def _table(place: str, registry: Registry[Any]) -> str:
    folder = registry.package.replace(".", "/")
    lines = [f"## {registry.what.capitalize() if registry.what.islower() else registry.what}", ""]
    lines += [f"{place}; `{folder}/`", "", "| name | settings | what it is |", "|---|---|---|"]
    lines += [f"| `{kind.name}` | {_settings(kind)} | {kind.doc} |" for kind in registry if "." not in kind.name]
    return "\n".join([*lines, ""])


def _settings(kind: Any) -> str:
    needed = needed_settings(kind)
    texts = [f"`{name}`" if name in needed else f"`{name}: {f.default}`" for name, f in settings_of(kind).items()]
    return ", ".join(texts) or "–"


if __name__ == "__main__":
    sys.stdout.write(page())
