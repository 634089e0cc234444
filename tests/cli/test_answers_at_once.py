"""The commands that read a sweep wait for nothing that computes: what they import, not how long they take."""

import subprocess
import sys

import pytest

from sweeps.planning.plan import make_plan
from sweeps.spec.reading import read_spec, sweep_file
from sweeps.storage.events import SweepStarted
from sweeps.storage.layout import Storage
from tests.sweeps.conftest import ended, made, scored

HEAVY = ("torch", "numpy", "scipy", "sklearn", "mlflow", "optuna", "ray", "matplotlib", "accelerate")
COMMANDS = [
    ["rank"],
    ["rank", "--json"],
    ["status"],
    ["best"],
    ["plan", "conditioning"],
    ["plan", "conditioning", "--json"],
]
SETTINGS = (  # registries whose kinds a sweep file names, with their settings
    "mpdit.model.attention.registry:ATTENTIONS",
    "mpdit.model.mlp.registry:MLPS",
    "mpdit.model.modulation.registry:MODULATIONS",
    "mpdit.diffusion.objectives.registry:OBJECTIVES",
    "mpdit.diffusion.guidance_rules.registry:GUIDANCE_RULES",
    "mpdit.diffusion.sampling_schedules.registry:SAMPLING_SCHEDULES",
    "mpdit.inference.block_choices.registry:BLOCK_CHOICES",
    "mpdit.inference.weight_formats.registry:WEIGHT_FORMATS",
    "mpdit.diffusion.samplers.registry:SAMPLERS",
    "mpdit.training.lr_schedules.registry:LR_SCHEDULES",
    "mpdit.training.optimizers.registry:OPTIMIZERS",
    "mpdit.data.registry:DATASETS",
    "pipelines.scoring.metrics.registry:METRICS",
    "sweeps.spec.search_algorithm:SEARCHES",
    "sweeps.spec.scheduler_kind:SCHEDULERS",
    "sweeps.spec.tracking_views:VIEWS",
)


def run_alone(code: str) -> None:
    """Run some code in a new process; `loaded()` gives the heavy modules that it has imported."""
    head = f"import sys\ndef loaded():\n    return sorted({set(HEAVY)} & set(sys.modules))\n"
    done = subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A storage with the shipped sweep, all of it scored."""
    storage = Storage(tmp_path_factory.mktemp("shipped"))
    plan = make_plan(read_spec(sweep_file("conditioning")))
    ledger = made(storage, plan)
    storage.sweep("made").rename(storage.sweep("conditioning"))
    ledger.path = storage.ledger("conditioning")
    ledger.append(SweepStarted("s", 2))
    for trial in range(len(plan.trials)):
        for cell in range(len(plan.cells)):
            ledger.append(
                scored(plan, trial, cell, 2.0 + trial + cell / 10, left_out=[2.0 + i / 100 for i in range(10)])
            )
        ledger.append(
            ended(plan, trial, training_seconds=1.0, training_work=1.0, scoring_seconds=1.0, scoring_work=1.0)
        )
    return storage


def test_a_reading_command_imports_nothing_that_computes(shipped: Storage) -> None:
    each = f"""
from cli.main import main
for command in {COMMANDS}:
    sys.argv = ["mpdit", *command, "--storage", {str(shipped.root)!r}]
    try:
        main()
    except SystemExit as end:
        assert not end.code, command
"""
    run_alone(each)  # what is not known of the data yet is found, and kept
    run_alone(each + '    assert not loaded(), f"{command} imports {loaded()}"')


def test_the_settings_of_a_kind_are_read_without_what_it_computes_with() -> None:
    """A kind that fails here: `lazy_module`, or its layer in `layers/NAME.py`; see CONTRIBUTING.md."""
    run_alone(f"""
from importlib import import_module
from pkgutil import walk_packages
for module, name in {[registry.split(":") for registry in SETTINGS]}:
    registry = getattr(import_module(module), name)
    for found in walk_packages(import_module(registry.package).__path__, registry.package + "."):
        if ".layers." in found.name:
            continue
        import_module(found.name)
        assert not loaded(), f"{{found.name}} imports {{loaded()}} at its top"
""")
