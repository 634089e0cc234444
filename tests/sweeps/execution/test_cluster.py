"""How many trials fit on which machines; addresses that lead nowhere. Ray itself: test_runner.py and tests/slow."""

import os
from pathlib import Path
from typing import Any

import pytest

from mpdit.errors import InputError
from sweeps.execution.cluster import dead_folders, gpus_per_trial, joined_ray, slots, temporary_folder
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


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder for Ray's folders."""
    monkeypatch.setattr("sweeps.execution.cluster._temporary", lambda: tmp_path)
    return tmp_path


def test_ray_s_folder_of_a_driver_is_dead_when_its_process_is_and_not_before(here: Path) -> None:
    with temporary_folder() as mine:
        assert f"mpdit-ray-{os.getpid()}-" in mine.name
        elsewhere = mine.rename(here / f"mpdit-ray-999999999-{mine.name[-8:]}")  # as a container's process is seen here
        assert dead_folders() == []
        with temporary_folder():
            assert elsewhere.exists()
        elsewhere.rename(mine)
    left = here / f"mpdit-ray-{os.getpid()}-abcd0123"  # of another process with the same number
    left.mkdir()
    assert dead_folders() == [left]
    with temporary_folder():
        assert not left.exists()
    assert list(here.iterdir()) == []


def test_what_others_have_put_there_is_left_alone(here: Path) -> None:
    (here / "mpdit-ray-foo").touch()
    (here / "mpdit-ray-7-notes").mkdir()
    (here / "mpdit-ray-999999999-abcd0123").touch()
    (here / f"mpdit-ray-{os.getpid()}").mkdir()  # as release 0.1.0 names it
    (here / "mpdit-ray-999999999").mkdir()
    assert [path.name for path in dead_folders()] == ["mpdit-ray-999999999"]
    with temporary_folder() as mine:
        assert {path.name for path in here.iterdir()} == {
            "mpdit-ray-foo",
            "mpdit-ray-7-notes",
            "mpdit-ray-999999999-abcd0123",
            f"mpdit-ray-{os.getpid()}",
            mine.name,
        }
