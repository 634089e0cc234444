import logging
from pathlib import Path

import pytest
import torch

from pipelines.training import checkpoint
from pipelines.training.checkpoint import Checkpoint


def kept(folder: Path, step: int) -> None:
    checkpoint.save(folder, Checkpoint(step, {"w": torch.full((3,), float(step))}, {"training_seconds": step / 2}))


def test_the_newest_comes_back_as_it_was(tmp_path: Path) -> None:
    for step in (10, 20):
        kept(tmp_path, step)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 20
    assert torch.equal(found.tensors["w"], torch.full((3,), 20.0))
    assert found.facts == {"training_seconds": 10.0}


def test_only_two_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        kept(tmp_path, step)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000030", "step-00000040"]


@pytest.mark.parametrize(
    "damage", ["flip", "truncate", "no tensors", "no manifest", "broken manifest", "empty manifest"]
)
def test_a_damaged_one_falls_back_to_the_one_before(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (10, 20):
        kept(tmp_path, step)
    state, manifest = (tmp_path / "step-00000020" / name for name in (checkpoint.STATE, checkpoint.MANIFEST))
    match damage:
        case "flip":
            content = bytearray(state.read_bytes())
            content[-1] ^= 1
            state.write_bytes(content)
        case "truncate":
            state.write_bytes(state.read_bytes()[:-5])
        case "no tensors":
            state.unlink()
        case "no manifest":
            manifest.unlink()
        case "broken manifest":
            manifest.write_text("{")
        case "empty manifest":
            manifest.write_text("[]")
    with caplog.at_level(logging.WARNING):
        found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 10
    assert "step-00000020 is damaged" in caplog.text


def test_a_half_written_one_is_never_taken(tmp_path: Path) -> None:
    kept(tmp_path, 10)
    (tmp_path / "step-00000010").rename(tmp_path / "partial-00000020")
    assert checkpoint.latest(tmp_path) is None
    kept(tmp_path, 20)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 20


def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "nothing") is None
