import os
import time
from pathlib import Path

import pytest

from sweeps import doctor
from sweeps.bug_report import without_secrets, write_report
from sweeps.doctor import Finding
from sweeps.storage.layout import Storage


def test_another_version_than_tested_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CODE", tmp_path)
    assert doctor._pins().grade == "ok"  # no checkout: nothing to compare with
    (tmp_path / "constraints.txt").write_text("# pins\ntorch==0.0.1\nnot-installed==3\n")
    found = doctor._pins()
    assert found.grade == "warn"
    assert "torch" in found.what
    assert "tested with 0.0.1" in found.what
    assert "not-installed" not in found.what
    assert found.hint


def test_a_clock_behind_the_files_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._clock().grade == "ok"
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now - 10 * 365 * 86400)  # the edge of the machine
    assert doctor._clock().grade == "warn"


@pytest.mark.parametrize(
    ("rates", "chosen", "grade"),
    [((100.0, 300.0), "fp32", "warn"), ((100.0, 300.0), "bf16", "ok"), ((100.0, 20.0), "bf16", "warn")],
)
def test_the_precision_that_pays_is_told(
    rates: tuple[float, float], chosen: str, grade: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.recipe import Recipe

    measured = iter(rates)
    monkeypatch.setattr(doctor, "multiplications", lambda _device, _dtype: next(measured))
    recipe = Recipe.model_validate({"runtime": {"device": "cpu", "precision": chosen}})
    monkeypatch.setattr(doctor, "resolve_runtime", lambda _recipe: recipe)
    found = doctor._precision()
    assert found.grade == grade
    assert f"precision auto takes {chosen}" in found.what


def test_matrix_products_are_measured() -> None:
    import torch

    assert doctor.multiplications("cpu", torch.float32, seconds=0.0) > 0.01


def test_missing_or_other_inception_weights_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPDIT_INCEPTION_WEIGHTS", str(tmp_path / "weights.pth"))
    assert doctor._inception().grade == "warn"
    assert "no Inception weights" in doctor._inception().what
    (tmp_path / "weights.pth").write_bytes(b"others")
    assert "other Inception weights" in doctor._inception().what


def test_a_database_that_cannot_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(tmp_path)
    assert doctor._tracking(storage).grade == "ok"
    storage.database.write_text("no database")
    monkeypatch.setattr("sweeps.tracking.mlflow_view.check_database", lambda _storage: None)
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)  # tests may run as one who may write anything
    found = doctor._tracking(storage)
    assert found.grade == "fail"
    assert "not writable" in found.what


def test_a_bug_report_tells_no_secret() -> None:
    environment = {
        "HF_TOKEN": "hf_abcdefghijkl",
        "MLFLOW_TRACKING_PASSWORD": "letmein",
        "USER": "someone",
        "A_KEY": "x",
    }
    text = "\n".join(
        [
            "MLFLOW_TRACKING_URI=https://someone:letmein@tracking.example/path",
            "the password is letmein indeed",
            "aws_secret_access_key = AbCdEf123",
            '"api_key": "abc-def", next',
            "found hf_zyxwvutsrqponm and AKIAABCDEFGHIJKL",
            f"{Path.home()}/runs of someone",
            "sha256:0123456789abcdef stays, as does the tokenizer",
        ]
    )
    told = without_secrets(text, environment)
    for secret in ("letmein", "AbCdEf123", "abc-def", "hf_zyx", "AKIAABC", "someone", str(Path.home()) + "/"):
        assert secret not in told, told
    assert "***@tracking.example/path" in told
    assert "sha256:0123456789abcdef stays" in told


def test_a_bug_report_holds_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPDIT_SOMETHING", "told")
    monkeypatch.setenv("HOME_COOKED_SECRET", "hush-hush")
    log = tmp_path / "runs" / "trials" / "abc" / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"line {number}\n" for number in range(50)) + "failed with hush-hush\n")
    write_report(tmp_path / "report.txt", [Finding("warn", "little disk", "make space")], Storage(tmp_path / "runs"))
    text = (tmp_path / "report.txt").read_text()
    for part in (
        "warn  little disk\n      → make space",
        "torch==",
        "MPDIT_SOMETHING=told",
        "line 49",
        "failed with ***",
    ):
        assert part in text
    assert "line 3\n" not in text
    assert "hush" not in text
