"""The command line as a person meets it: what it prints and how it ends."""

import csv
import io
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.yaml_file import write_yaml
from sweeps.planning.plan import Plan
from sweeps.spec.reading import read_spec
from sweeps.storage.events import SweepStarted
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import Ledger
from tests.cli.conftest import Command, Refused
from tests.pipelines.scoring.test_reference import digits_file
from tests.sweeps.conftest import ended, made, plan_of, scored

CODE = Path(__file__).resolve().parents[2]

SWEEP = """\
name: mine
recipe: {steps: 8, batch: 16}
axes:
  model.modulation: [scale, rotation]
  ema.sigma_rel: [0.05, 0.1]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with a sweep in it whose ledger is made up; its trials have no weights."""
    storage = Storage(tmp_path_factory.mktemp("storage"))
    storage.prepare()
    plan = plan_of({"model.modulation": ["scale", "rotation"], "ema.sigma_rel": [0.05, 0.1]})
    storage.sweep("made").mkdir()
    write_yaml(storage.sweep("made") / "sweep.yaml", plan.spec.model_dump())
    ledger = Ledger(storage.ledger("made"))
    ledger.append(SweepStarted("s", 2, settings={"axes": plan.spec.axes}))
    for trial, cell, value in ((0, 0, 6.0), (0, 1, 6.1), (1, 0, 2.0), (1, 1, None)):
        ledger.append(scored(plan, trial, cell, value))
    for trial in (0, 1):
        ledger.append(ended(plan, trial))
    return storage.root


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    code = "import sys, cli.main; heavy = {'torch', 'ray', 'mlflow', 'numpy', 'pydantic_core', 'sklearn', 'yaml'}\n"
    code += "print(sorted(heavy & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_names_every_command(mpdit: Command) -> None:
    text = mpdit("--help").stdout
    for name in (
        "sweep",
        "plan",
        "status",
        "rank",
        "best",
        "train",
        "evaluate",
        "sample",
        "ui",
        "doctor",
        "stop",
        "retry",
        "sync",
        "clean",
    ):
        assert f" {name} " in text


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("axes:", "axis:", ["line 3", "'axis'", "axes"]),
        ("model.modulation", "model.modulatoin", ["line 4", "model.modulation"]),
        ("rotation]", "rotatoin]", ["line 4", "rotation"]),
        ("[scale, rotation]", "[]", ["line 4", "empty"]),
        ("ema.sigma_rel: [0.05, 0.1]", "optimizer.lr: [-0.1]", ["line 5", "-0.1", "greater than 0"]),
        ("axes:", "axes: [", ["not YAML"]),
    ],
)
def test_a_mistake_in_a_sweep_file_ends_with_one_message(
    old: str, new: str, says: list[str], tmp_path: Path, refused: Refused
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SWEEP.replace(old, new))
    message = refused("sweep", path, "--storage", tmp_path / "runs")
    assert all(part in message for part in says), message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sweep", "none.yaml"], ["there is no sweep file none.yaml", "conditioning"]),
        (["sweep", "conditioning", "--storage", "/proc/none"], ["not writable", "MPDIT_STORAGE"]),
        (["sweep", "conditioning", "--set", "recipe.stepz=3"], ["--set recipe.stepz", "'stepz'", "steps"]),
        (["plan", "none"], ["there is no sweep file"]),
        (["plan", "conditioning", "--set", "axes.ema.sigma_rel=[0.005]"], ["EMA width 0.005", "0.007 to 0.278"]),
        (["sweep", "conditioning", "--set", "budget.disk_gb=0.001"], ["do not fit", "budget.disk_gb allows 0.001"]),
        (["sweep", "conditioning", "--set", "evaluation.extractor=incepton"], ["'incepton'", "inception"]),
        (["sweep", "conditioning", "--set", "screening.samples=100"], ["screening.samples", "250"]),
        (["best", "--storage", "nothing"], ["there is no sweep in", "mpdit sweep"]),
        (["rank", "--storage", "nothing"], ["there is no sweep in"]),
        (["status", "other", "--storage", "nothing"], ["there is no sweep in"]),
        (["train", "none.yaml"], ["there is no file none.yaml"]),
        (["evaluate", "none"], ["there is no run 'none'"]),
        (["sample", "none"], ["there is no run 'none'"]),
        (["ui", "--storage", "nothing"], ["nothing to show"]),
        (["sweep"], ["Missing argument"]),
        (["swep"], ["No such command"]),
    ],
)
def test_what_cannot_be_done_is_refused(
    arguments: list[str], says: list[str], tmp_path: Path, refused: Refused
) -> None:
    message = refused(*arguments, cwd=tmp_path)
    assert all(part in message for part in says), message


def test_rank_prints_the_cells_best_first(finished: Path, mpdit: Command) -> None:
    text = mpdit("rank", "--storage", finished).stdout
    lines = text.splitlines()
    assert lines[0].split() == [
        "rank",
        "trial",
        "modulation",
        "sigma_rel",
        "fd_digits_2k",
        "±",
        "drift",
        "status",
    ]
    assert [line.split()[2] for line in lines[1:5]] == ["rotation", "scale", "scale", "rotation"]
    assert lines[4].endswith("diverged")
    assert "noise floor: 0.200" in text
    table = lines[: lines.index("")]  # below it are commands to paste, which are not broken
    assert all(len(line) <= 80 for line in table)


def test_rank_as_json_is_one_document(finished: Path, mpdit: Command) -> None:
    rows = json.loads(mpdit("rank", "made", "--storage", finished, "--json").stdout)
    assert [row["value"] for row in rows] == [2.0, 6.0, 6.1, None]
    assert rows[0]["params"] == {"model.modulation": "rotation", "ema.sigma_rel": 0.05}
    assert rows[0]["metric"] == "fd_digits_2k"
    best_two = json.loads(mpdit("rank", "--storage", finished, "--json", "--top", "2").stdout)
    assert best_two == rows[:2]


def test_rank_by_another_metric(finished: Path, mpdit: Command, refused: Refused) -> None:
    rows = json.loads(mpdit("rank", "--storage", finished, "--json", "--by", "magnitude_drift").stdout)
    assert {row["metric"] for row in rows} == {"magnitude_drift"}
    assert "nearest" in refused("rank", "--storage", finished, "--by", "magnitude_drif")


@pytest.fixture
def two_sweeps(tmp_path: Path) -> Path:
    """A storage with `made` and `longer`, of twice the steps and a further axis."""
    storage = Storage(tmp_path)
    ledger = made(storage, plan_of({"model.modulation": ["scale"], "ema.sigma_rel": [0, 0.05]}))
    longer = plan_of({"optimizer.lr": [0.1], "ema.sigma_rel": [0.05]}, recipe={"steps": 1200})
    for name, plan, values in (
        ("made", plan_of({"model.modulation": ["scale"], "ema.sigma_rel": [0, 0.05]}), (3.0, 5.0)),
        ("longer", longer, (4.0,)),
    ):
        if name != "made":
            write_longer(storage, plan)
            ledger = Ledger(storage.ledger(name))
        ledger.append(SweepStarted("s", 2))
        for cell, value in enumerate(values):
            ledger.append(scored(plan, 0, cell, value))
        ledger.append(ended(plan, 0))
    return tmp_path


def write_longer(storage: Storage, plan: Plan) -> None:
    storage.sweep("longer").mkdir()
    write_yaml(storage.spec("longer"), plan.spec.model_copy(update={"name": "longer"}).model_dump())


def test_two_sweeps_are_ranked_in_one_table(two_sweeps: Path, mpdit: Command, tmp_path: Path) -> None:
    command = ("rank", "made", "longer", "--storage", two_sweeps)
    text = mpdit(*command).stdout
    table, differ = text.split("where they differ:")
    assert [line.split()[:2] for line in table.splitlines()[1:4]] == [["1", "made"], ["2", "longer"], ["3", "made"]]
    assert "recipe.steps: 600 in made, 1200 in longer" in differ
    assert "axes.optimizer.lr: none in made, [0.1] in longer" in differ
    assert "different data" not in text
    rows = json.loads(mpdit(*command, "--json", "--top", "2").stdout)
    assert [(row["sweep"], row["value"]) for row in rows] == [("made", 3.0), ("longer", 4.0)]
    assert mpdit(*command, "--csv").stdout.splitlines()[0].startswith("sweep,model.modulation,ema.sigma_rel")
    assert mpdit("rank", "made", "made", "--storage", two_sweeps, "--json").stdout.count('"rank"') == 2  # named twice


def test_a_ranking_as_parquet_is_the_comma_separated_one(two_sweeps: Path, mpdit: Command, tmp_path: Path) -> None:
    from pyarrow import parquet

    path = tmp_path / "new" / "table.parquet"
    text = mpdit("rank", "made", "longer", "--storage", two_sweeps, "--csv", "--parquet", path).stdout
    table = parquet.read_table(path).to_pylist()
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [{key: "" if value is None else str(value) for key, value in row.items()} for row in table] == lines
    assert [row["value"] for row in table] == [3.0, 4.0, 5.0]  # numbers stay numbers
    assert list(path.parent.iterdir()) == [path]


def test_sweeps_of_different_metrics_or_data_are_not_compared(
    two_sweeps: Path, mpdit: Command, refused: Refused
) -> None:
    ledger, path = Storage(two_sweeps).ledger("longer"), Storage(two_sweeps).spec("longer")
    text = ledger.read_text()
    ledger.write_text(text.replace("fd_digits_2k", "fd_digits_500"))
    message = refused("rank", "made", "longer", "--storage", two_sweeps)
    assert "longer:  fd_digits_500" in message
    assert "made:    fd_digits_2k" in message
    ledger.write_text(text)
    path.write_text(path.read_text().replace("name: digits", "name: digits\n    holdout: 0.1"))
    assert "cannot be compared" in mpdit("rank", "made", "longer", "--storage", two_sweeps).stdout


def test_rank_as_comma_separated_values(finished: Path, mpdit: Command) -> None:
    lines = mpdit("rank", "--storage", finished, "--csv").stdout.splitlines()
    assert lines[0].startswith("model.modulation,ema.sigma_rel,rank,trial")
    assert len(lines) == 5


def test_status_shows_each_trial(finished: Path, mpdit: Command) -> None:
    assert "made: not running" in mpdit("status", "--storage", finished).stdout
    found = json.loads(mpdit("status", "--storage", finished, "--json").stdout)
    assert [row["status"] for row in found["trials"]] == ["completed", "completed"]
    assert [row["best"] for row in found["trials"]] == [6.0, 2.0]


def test_best_shows_the_winner_and_exports_only_what_is_there(finished: Path, mpdit: Command, refused: Refused) -> None:
    best = json.loads(mpdit("best", "--storage", finished, "--json").stdout)
    assert best["value"] == 2.0
    assert best["bundle"] is None
    assert "are not in" in refused("best", "--storage", finished, "--export")


def test_a_taken_port_is_refused(finished: Path, refused: Refused) -> None:
    (finished / "mlflow.db").touch()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert f"port {port} cannot be used" in refused("ui", "--storage", finished, "--port", port)


def test_plan_refuses_what_sweep_would_refuse(finished: Path, tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "made.yaml"
    path.write_text(SWEEP.replace("name: mine", "name: made"))
    message = refused("plan", path, "--storage", finished)
    assert "there is another sweep named 'made'" in message
    assert "recipe.steps was 600, is 8" in message


def test_plan_shows_trials_cells_and_cost(tmp_path: Path, mpdit: Command) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SWEEP)
    text = mpdit("plan", path, "--storage", tmp_path / "runs").stdout
    assert "2 trials (model.modulation): 2 to train, 0 only to score" in text
    assert "= 4 cells" in text
    assert "not known yet" in text
    found = json.loads(mpdit("plan", path, "--storage", tmp_path / "runs", "--json").stdout)
    assert list(found) == ["sweep", "trials", "cells", "training_axes", "post_hoc_axes", "estimate", "reused"]
    assert found["cells"] == 4
    assert found["estimate"]["hours"] is None
    assert list(found["trials"][0]) == ["id", "params", "parameters", "steps"]
    assert not (tmp_path / "runs").exists()


def test_set_changes_one_field(tmp_path: Path, mpdit: Command) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SWEEP)
    settings = ["--set", "recipe.steps=99", "--set", "axes.optimizer.lr=[0.01, 0.02]"]
    found = json.loads(mpdit("plan", path, "--storage", tmp_path / "runs", "--json", *settings).stdout)
    assert [trial["steps"] for trial in found["trials"]] == [99] * 4
    assert read_spec(path).recipe.steps == 8


@pytest.mark.slow
def test_train_evaluate_and_sample_one_run(tmp_path: Path, mpdit: Command, refused: Refused) -> None:
    (tmp_path / "recipe.yaml").write_text("steps: 4\nbatch: 16\nruntime: {device: cpu, threads: 1}\n")
    done = mpdit("train", "recipe.yaml", "-o", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["metric"] == "fd_digits_2k"
    scores = mpdit("evaluate", "run", "--ema", "0,0.05", "--samples", "50", "--json", cwd=tmp_path)
    assert [found["params"]["ema.sigma_rel"] for found in json.loads(scores.stdout)] == [0.0, 0.05]
    assert mpdit("sample", "run", "-o", "grid.png", "--classes", "3,1", "--rows", "2", cwd=tmp_path).returncode == 0
    from PIL import Image

    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (2 * 64 + 8, 2 * 64 + 8 + 20)  # 20: the classes' names
    assert "0 to 9" in refused("sample", "run", "--classes", "3,x", cwd=tmp_path)
    assert "no class '12'" in refused("sample", "run", "--classes", "12", cwd=tmp_path)
    (tmp_path / "runs" / "trials").mkdir(parents=True)
    (tmp_path / "runs" / "trials" / "abc").symlink_to(tmp_path / "run")  # as a sweep leaves a trial
    done = mpdit("train", "abc", "-o", "run", "--json", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)[0]["metric"]) == (0, "fd_digits_2k"), done.stderr
    assert "nearest:  abc" in refused("train", "abcd", cwd=tmp_path)
    more = mpdit(
        "evaluate", "run", "--samples", "60", "--metrics", "kid,precision_recall,frechet_by_class", cwd=tmp_path
    )
    assert all(name in more.stdout for name in ("fd_digits_60", "kid", "precision", "recall")), more
    assert "60 samples for 64 features" in more.stderr
    assert not list(tmp_path.glob("**/scores")) + list(tmp_path.glob(".grid*"))
    assert "frechet_by_class" in more.stdout
    assert "frechet_by_class/" not in more.stdout  # a column for each class would be unreadable
    digits_file(tmp_path / "half.npz", 900)
    against = mpdit("evaluate", "run", "--samples", "60", "--reference", "half.npz", "--json", cwd=tmp_path)
    assert json.loads(against.stdout)[0]["provenance"]["reference_count"] == 900, against
    assert "there is no reference at" in refused("evaluate", "run", "--reference", "none.npz", cwd=tmp_path)
    assert "no metric 'fid'" in refused("evaluate", "run", "--metrics", "fid", cwd=tmp_path)
    assert "--ema takes numbers" in refused("evaluate", "run", "--ema", "wide", cwd=tmp_path)
    assert "0.288" in refused("evaluate", "run", "--ema", "0.4", cwd=tmp_path)
    assert "no field 'stps'" in refused("train", "recipe.yaml", "--set", "stps=3", cwd=tmp_path)


def test_missing_weights_stop_a_sweep_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    import torch

    def no_network(*_arguments: object, **_options: object) -> None:  # the machine's edge: no download in a test
        raise OSError("no network here")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("MPDIT_INCEPTION_WEIGHTS", raising=False)
    (tmp_path / "mine.yaml").write_text(SWEEP + "evaluation: {extractor: inception}\n")
    message = refused("sweep", tmp_path / "mine.yaml", "--storage", tmp_path / "runs")
    for part in ("github.com/toshas", "6726825d0af5f729", "--inception-weights", "evaluation.extractor=auto"):
        assert part in message
    assert not list((tmp_path / "runs" / "trials").iterdir())
    assert not list((tmp_path / "runs" / "sweeps").glob("*/sweep.yaml"))  # the name is free for another evaluation
    option = ["--inception-weights", tmp_path / "nowhere.pth"]
    assert "nowhere.pth" in refused("sweep", tmp_path / "mine.yaml", "--storage", tmp_path / "runs", *option)


@pytest.mark.slow
def test_doctor_finds_nothing_that_stops_a_sweep(tmp_path: Path, mpdit: Command) -> None:
    done = mpdit("doctor", "--storage", tmp_path)
    assert done.returncode == 0, done.stdout
    assert "fail" not in {line.split()[0] for line in done.stdout.splitlines()}
    (tmp_path / "VERSION").write_text("99\n")
    done = mpdit("doctor", "--storage", tmp_path)
    assert done.returncode == 1
    assert "fail" in {line.split()[0] for line in done.stdout.splitlines()}


TUNED = """\
name: tuned
recipe: {steps: 2, batch: 8, optimizer: {parametrization: mup}, runtime: {device: cpu, threads: 1}}
axes: {optimizer.lr: [0.01, 0.02], ema.sigma_rel: [0.05, 0.1]}
evaluation: {samples: 20, steps: 2}
"""


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """A storage with a finished µP sweep whose ledger is made up, and its file beside it."""
    (tmp_path / "tuned.yaml").write_text(TUNED)
    storage, spec = Storage(tmp_path / "runs"), read_spec(tmp_path / "tuned.yaml")
    storage.prepare()
    from pipelines.yaml_file import write_yaml
    from sweeps.planning.plan import make_plan

    plan = make_plan(spec)
    storage.sweep("tuned").mkdir()
    write_yaml(storage.spec("tuned"), spec.model_dump())
    ledger = Ledger(storage.ledger("tuned"))
    ledger.append(SweepStarted("s", 1, settings={"axes": spec.axes}))
    for trial, cell, value in ((0, 0, 3.0), (0, 1, 3.1), (1, 0, 2.5), (1, 1, 2.0)):
        ledger.append(scored(plan, trial, cell, value))
        ledger.append(ended(plan, trial, training_seconds=1.0, training_work=1e8))
    return tmp_path


def test_the_winner_s_recipe_goes_to_another_size_in_one_line(tuned: Path, mpdit: Command, refused: Refused) -> None:
    done = mpdit("best", "--export", "--size", "XS", "--patch", "4", cwd=tuned)
    assert done.returncode == 0, done.stderr
    assert "depth: from 4 to 6 blocks" in done.stderr
    bundle = "bundles/tuned-XS-4"
    assert f"mpdit train {bundle}" in done.stdout
    for words in (("sample", bundle), ("evaluate", bundle)):
        assert f"{bundle} has no weights yet" in refused(*words, cwd=tuned)
    settings = ["--set", "batch=2", "--set", "model.size=nano"]  # small enough for a test
    trained = mpdit("train", bundle, *settings, "--output", "large", "--json", cwd=tuned)
    assert trained.returncode == 0, trained.stderr
    params = json.loads(trained.stdout)[0]["params"]
    assert (params["ema.sigma_rel"], params["evaluation.samples"]) == (0.1, 20)
    found = json.loads(mpdit("best", "--export", "--size", "XS", "--json", cwd=tuned).stdout)
    assert found["bundle"] == "bundles/tuned-XS-2"
    assert found["transfer"]["hidden_lr"] == {"nano/2": 0.02, "XS/2": 0.01}


def test_plan_shows_what_tuning_small_saves(tuned: Path, mpdit: Command) -> None:
    text = mpdit("plan", "tuned.yaml", "--size", "B", "--patch", "4", cwd=tuned).stdout
    assert "one training of B/4" in text
    assert "this sweep at B/4" in text
    assert "saved by tuning here" in text
    assert "no rule covers depth: from 4 to 12 blocks" in text
    found = json.loads(mpdit("plan", "tuned.yaml", "--size", "B", "--json", cwd=tuned).stdout)["transfer"]
    assert [found[name]["trainings"] for name in ("sweep", "training", "sweep_at_target")] == [2, 1, 2]
    cost = {name: found[name]["petaflop"] for name in ("sweep", "training", "sweep_at_target")}
    assert cost["sweep_at_target"] == pytest.approx(2 * cost["training"], rel=1e-3)
    assert found["saved"] == pytest.approx(1 - (cost["sweep"] + cost["training"]) / cost["sweep_at_target"], abs=1e-3)
    assert found["training"]["hours"] > found["sweep"]["hours"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["best", "--size", "B"], ["add --export"]),
        (["best", "--export", "--size", "Bb"], ["no model size 'Bb'", "nearest"]),
        (["best", "--export", "--patch", "3"], ["patch 3 does not divide"]),
        (["plan", "tuned.yaml", "--size", "B", "--patch", "3"], ["patch 3 does not divide"]),
        (["plan", "conditioning", "--size", "B"], ["found under sp at width 64", "hint"]),
        (["plan", "tuned.yaml", "--set", "recipe.optimizer.base_width=72"], ["attention heads", "multiples of 16"]),
    ],
)
def test_what_does_not_transfer_is_refused(
    arguments: list[str], says: list[str], tuned: Path, refused: Refused
) -> None:
    message = refused(*arguments, cwd=tuned)
    assert all(part in message for part in says), message


def test_sizes_share_one_axis_of_rates_under_mup_and_their_depths_are_named(tuned: Path, mpdit: Command) -> None:
    sizes = ["--set", "name=sizes", "--set", "axes.model.size=[nano, XS]"]
    found = json.loads(mpdit("plan", "tuned.yaml", *sizes, "--json", cwd=tuned).stdout)
    shared = {(trial["params"]["model.size"], trial["params"]["optimizer.lr"]) for trial in found["trials"]}
    assert shared == {(size, lr) for size in ("nano", "XS") for lr in (0.01, 0.02)}
    text = mpdit("plan", "tuned.yaml", *sizes, cwd=tuned).stdout
    assert "not the depth: 4, 6 blocks" in text
    assert "depth" not in mpdit("plan", "tuned.yaml", cwd=tuned).stdout


def test_sigterm_ends_a_command_that_was_started_with_ctrl_c_ignored() -> None:
    code = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
from cli import main

@main.app.command()
def wait() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    sys.exit("it goes on")

sys.argv = ["mpdit", "wait"]
main.main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=CODE, capture_output=True, text=True)
    assert done.returncode == 130, done
