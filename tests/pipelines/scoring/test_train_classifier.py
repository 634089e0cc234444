"""Training a set's own features: it goes on where it was stopped, and tells whether left and right are alike."""

from pathlib import Path

import pytest

from mpdit.data.registry import load_dataset
from mpdit.scoring.small_classifier import WEIGHTS, load_classifier
from pipelines.scoring import train_classifier
from pipelines.scoring.train_classifier import mirrored_distance, train_extractor


class Stop(BaseException):
    """As Ctrl-C."""


def stop(step: int, _steps: int) -> None:
    if step == 5:
        raise Stop


def test_a_stopped_training_goes_on_and_ends_as_the_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_classifier, "KEEP_EVERY", 2)
    data = load_dataset("digits")
    whole = train_extractor(data, tmp_path / "whole", steps=8)
    with pytest.raises(Stop):
        train_extractor(data, tmp_path / "cut", steps=8, progress=stop)
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["digits.unfinished"]
    steps: list[int] = []
    cut = train_extractor(data, tmp_path / "cut", steps=8, progress=lambda step, _steps: steps.append(step))
    assert steps == [5, 6, 7, 8]
    assert cut.read_bytes() == whole.read_bytes()
    assert cut.with_suffix(".json").read_text() == whole.with_suffix(".json").read_text()
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["digits.json", "digits.safetensors"]


@pytest.mark.parametrize("left", ["another training", "damaged"])
def test_what_another_training_has_left_is_not_taken_up(
    left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_classifier, "KEEP_EVERY", 2)
    data = load_dataset("digits")
    if left == "damaged":
        (tmp_path / "digits.unfinished").write_bytes(b"of no use")
    else:
        with pytest.raises(Stop):
            train_extractor(data, tmp_path, steps=8, seed=1, progress=stop)
    steps: list[int] = []
    train_extractor(data, tmp_path, steps=3, progress=lambda step, _steps: steps.append(step))
    assert steps == [1, 2, 3]


def test_left_and_right_are_alike_in_shapes_and_not_in_digits() -> None:
    """A shape is turned at random, so a mirrored one is as likely; a mirrored 3 is no digit."""
    digits = load_classifier("digits", WEIGHTS, "cpu").network
    shapes = load_classifier("shapes", WEIGHTS, "cpu").network
    assert mirrored_distance(shapes, load_dataset("shapes", count=600)) == pytest.approx(1, abs=0.15)
    assert (mirrored_distance(digits, load_dataset("digits")) or 0) > 10
    assert mirrored_distance(shapes, load_dataset("shapes", count=30)) is None
