"""A first sweep file with a comment on every line, from a few answers."""

from dataclasses import dataclass
from pathlib import Path

from mpdit.errors import input_error
from sweeps.spec.model import SweepSpec
from sweeps.spec.reading import read_spec

SCHEMA_LINE = "# yaml-language-server: $schema="  # editors with the YAML language server check and complete the file
SCHEMA_FILE = "sweep.schema.json"


@dataclass(frozen=True)
class Answers:
    """What a new sweep is asked for; lists are as they are written, with commas."""

    name: str = "mine"
    data: str = "digits"
    size: str = "nano"
    steps: int = 450
    modulations: str = "scale+shift+gate, rotation+gate"
    rates: str = "0.05, 0.1, 0.2"
    widths: str = "0.03, 0.05, 0.1, 0.2"
    seeds: str = "0"


def sweep_text(answers: Answers) -> str:
    """The file's text. The schema is looked for beside it: `mpdit schema > sweep.schema.json`."""
    seeds = (
        ""
        if answers.seeds.strip() == "0"
        else f"  seed: [{answers.seeds}]{'':<22}# a repetition: merged, with an error\n"
    )
    return f"""\
{SCHEMA_LINE}{SCHEMA_FILE}
# mpdit plan FILE says what this will do and cost; mpdit sweep FILE does it, and continues it.
name: {answers.name}
recipe:                                   # what one training needs; unnamed fields take their defaults
  model: {{size: {answers.size}, patch: 2}}           # nano, XS, S, B, L, XL
  data: {{name: {answers.data}}}                    # digits, shapes; folder and latents want a path: docs/data.md
  steps: {answers.steps}
axes:                                     # every combination of these
  model.modulation: [{answers.modulations}]
  optimizer.lr: [{answers.rates}]
{seeds}  ema.sigma_rel: [{answers.widths}]    # post-hoc: costs no training
objective: {{metric: frechet, mode: min}}
evaluation: {{samples: 2000, sampler: dpm++2m, steps: 12}}
resources: {{gpus_per_trial: auto, cpus_per_trial: 1}}   # auto: one GPU if there is one
# notify: {{webhook: $MY_WEBHOOK}}         # told when it ends, when a trial fails, when a new best is found
"""


def write_sweep_file(path: Path, answers: Answers) -> SweepSpec:
    """Write the file and return its spec. Raises InputError, and writes nothing, for answers that cannot be used."""
    if path.exists():
        raise input_error(f"{path} is there already", given=path, hint="give another FILE")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(sweep_text(answers), encoding="utf-8")
    try:
        return read_spec(path)
    except Exception:
        path.unlink()
        raise
