"""What earlier releases called design E is F today, wherever they wrote it; what a person writes stays."""

import dataclasses
from typing import Any

import pytest

from mpdit.model.architecture import architecture_from
from mpdit.model.design import DESIGNS, SWITCHES, choose_design
from mpdit.model.old_designs import OLD_SWITCHES, current_model, current_values, is_old
from tests.conftest import small_architecture


def dumped(design: str) -> dict[str, Any]:
    """The `model` fields that an earlier release wrote: every switch, set or not, of its time."""
    return {"size": "nano", "design": design, "variant": None, **dict.fromkeys(OLD_SWITCHES)}


def test_the_switches_of_earlier_releases_are_today_s_but_one() -> None:
    assert set(SWITCHES) - OLD_SWITCHES == {"renormalized"}


@pytest.mark.parametrize(("before", "today"), [("A", "A"), ("D", "D"), ("E", "F")])
def test_a_model_that_an_earlier_release_wrote_has_today_s_name(before: str, today: str) -> None:
    assert current_model(dumped(before)) == {**dumped(before), "design": today, "renormalized": None}
    assert current_model(current_model(dumped(before))) == current_model(dumped(before))


@pytest.mark.parametrize(
    "model", [{"design": "E"}, {"design": "E", "mp_silu": False}, {**dumped("E"), "renormalized": None}]
)
def test_a_model_that_a_person_or_this_release_wrote_is_read_as_it_stands(model: dict[str, Any]) -> None:
    assert not is_old(model)
    assert current_model(model) == model


def test_values_by_path_are_renamed_wherever_they_name_a_design() -> None:
    written = {
        "model.design": ["A", "E"],
        "model.modulation": ["E"],
        "optimizer.lr": {"values": [0.1], "when": {"model.design": ["E"], "model.modulation": ["none"]}},
        "seed": 0,
    }
    assert current_values(written) == {
        **written,
        "model.design": ["A", "F"],
        "optimizer.lr": {"values": [0.1], "when": {"model.design": ["F"], "model.modulation": ["none"]}},
    }
    assert current_values({"model.design": "E"}) == {"model.design": "F"}
    assert current_values({"model.design": {"values": ["E"]}}) == {"model.design": {"values": ["F"]}}


@pytest.mark.parametrize("variant", [None, "map-dit"])
@pytest.mark.parametrize("design", ["A", "D", "E", "F"])
@pytest.mark.parametrize("switches", [{}, {"mp_residual": False}, {"mp_residual": True}])
def test_weights_of_an_earlier_release_are_of_the_network_that_they_were_trained_in(
    design: str, variant: str | None, switches: dict[str, bool]
) -> None:
    """Then every mp_sum was brought back, unless the network was of the variant map-dit; what is stored now, stays."""
    chosen = choose_design(design, switches, variant)
    stored = small_architecture(design=chosen).as_dict()
    assert architecture_from(stored).design == chosen
    del stored["design"]["renormalized"]
    brought_back = chosen.mp_residual and variant is None
    assert architecture_from(stored).design == dataclasses.replace(chosen, renormalized=brought_back)


def test_e_and_f_differ_by_the_new_switch_alone() -> None:
    assert dataclasses.replace(DESIGNS["E"], renormalized=True) == DESIGNS["F"]
