import json
import sys
from pathlib import Path

import pytest

from mpdit.errors import InputError
from pipelines.recipe import Recipe
from pipelines.studies import coordinate_check as coordinates

LARGE = {"F": 0.01, "E": 0.01, "A": 0.004}  # learning rates
MUON = {"F": 0.05, "A": 0.004}  # at which the blocks change as much as the final map, which Adam trains


def recipe(design: str, optimizer: str = "adam") -> Recipe:
    lr = (MUON if optimizer == "muon" else LARGE)[design]
    return Recipe.model_validate({"model": {"design": design}, "optimizer": {"lr": lr, "name": optimizer}})


def spreads(found: coordinates.Check, parametrization: str, kind: str) -> dict[str, float]:
    by_width = found[parametrization].values()
    return {place: coordinates.spread(c[kind][place] for c in by_width) for place in next(iter(by_width))[kind]}


@pytest.mark.parametrize("design", ["F", "A", pytest.param("E", marks=pytest.mark.slow)])
def test_under_mup_nothing_grows_with_the_width_and_under_sp_it_does(design: str) -> None:
    found = coordinates.check(recipe(design), (64, 256))
    for kind in ("activation", "change"):
        flat = spreads(found, "mup", kind)
        assert max(flat.values()) < 1.5, flat
    assert max(spreads(found, "sp", "change").values()) > 1.7


@pytest.mark.slow
@pytest.mark.parametrize("design", ["F", pytest.param("A", marks=pytest.mark.soak)])
def test_under_mup_muon_changes_no_more_at_a_larger_width(design: str) -> None:
    """Adds to CI: Muon's changes at two widths in design A; CI has F."""
    found = coordinates.check(recipe(design, "muon"), (32, 128))
    flat = spreads(found, "mup", "change")
    assert max(flat.values()) < 1.5, flat


@pytest.mark.soak
@pytest.mark.parametrize("design", "FA")
def test_the_same_from_width_64_to_1024(design: str) -> None:
    """Adds to CI: a coordinate check up to width 1024; CI goes to 256."""
    found = coordinates.check(recipe(design), (64, 256, 1024))
    for kind in ("activation", "change"):
        flat = spreads(found, "mup", kind)
        assert max(flat.values()) < 1.5, flat
    assert max(spreads(found, "sp", "change").values()) > 2.5


def test_the_command_prints_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "coordinates.png"
    monkeypatch.setattr(sys, "argv", ["coordinates", "--widths", "32,64", "--lr", "0.01", "-o", str(picture), "--json"])
    coordinates.main()
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["sp", "mup"]
    assert set(found["mup"]["32"]["change"]) >= {"block0/mlp/residual", "answer"}
    assert found["sp"]["64"] == found["mup"]["64"]  # the base width
    from PIL import Image

    with Image.open(picture) as image:
        assert image.size[0] > image.size[1]


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match="--widths 72"):
        coordinates.check(Recipe(), (72,))
