"""How many trials fit on which machines; addresses that lead nowhere. Ray itself: test_runner.py and tests/slow."""

from pathlib import Path
from typing import Any

import pytest

from mpdit.errors import InputError
from sweeps.execution.cluster import gpus_per_trial, joined_ray, slots
from sweeps.spec.model import SweepSpec

LAPTOP, CARD, EIGHT = {"CPU": 4.0}, {"CPU": 16.0, "GPU": 1.0}, {"CPU": 32.0, "GPU": 8.0}


def spec(**resources: Any) -> SweepSpec:
    return SweepSpec.model_validate({"name": "made", "axes": {"seed": [0]}, "resources": resources})


@pytest.mark.parametrize(
    ("asked", "nodes", "fit"),
    [
        ({}, [LAPTOP], 4),
        ({"cpus_per_trial": 3}, [LAPTOP, LAPTOP], 2),  # the core that is left on each does not make a trial
        ({}, [CARD], 1),
        ({"gpus_per_trial": 0}, [CARD], 16),
        ({"gpus_per_trial": 0.25}, [CARD], 4),
        ({"gpus_per_trial": 0.4}, [EIGHT], 16),  # two on each card, none across two
        ({"gpus_per_trial": 0.5, "cpus_per_trial": 10}, [CARD], 1),
        ({"workers_per_trial": 4}, [EIGHT], 2),
        ({"workers_per_trial": 3}, [EIGHT], 2),
        ({"workers_per_trial": 2}, [CARD, CARD, CARD], 1),  # the workers of one trial on two machines
        ({}, [CARD, LAPTOP], 1),
    ],
)
def test_as_many_trials_as_fit(asked: dict[str, Any], nodes: list[dict[str, float]], fit: int) -> None:
    assert slots(spec(**asked), nodes) == fit


@pytest.mark.parametrize(
    ("asked", "nodes"),
    [
        ({"cpus_per_trial": 5}, [LAPTOP, LAPTOP]),
        ({"gpus_per_trial": 1}, [LAPTOP]),
        ({"gpus_per_trial": 2}, [CARD, CARD]),
        ({"workers_per_trial": 9}, [EIGHT]),
    ],
)
def test_what_could_never_start_is_refused_with_the_numbers(
    asked: dict[str, Any], nodes: list[dict[str, float]]
) -> None:
    with pytest.raises(InputError, match=r"there are: .*CPU cores and .*GPUs"):
        slots(spec(**asked), nodes)


def test_auto_is_a_gpu_where_there_is_one() -> None:
    assert gpus_per_trial(spec(), [LAPTOP]) == 0
    assert gpus_per_trial(spec(), [LAPTOP, EIGHT]) == 1
    assert gpus_per_trial(spec(gpus_per_trial=0.5), [EIGHT]) == 0.5


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("nonsense", "HOST:PORT, or auto"),
        (":1", "HOST:PORT, or auto"),
        ("127.0.0.1:9", "no Ray cluster answers there"),
        ("127.0.0.1:99999", "no Ray cluster answers there"),
        ("ray://127.0.0.1:10001", "on a node of the cluster"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_at_once(address: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told), joined_ray(address, str(tmp_path), lambda: None):
        pass
