"""What several rooms' tests need: a small model, a small recipe, one thread."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from mpdit.diffusion.denoiser import Denoiser, build_denoiser
from mpdit.diffusion.objectives.edm import Edm
from mpdit.model.architecture import Architecture
from pipelines.recipe import Recipe

settings.register_profile("fixed", derandomize=True, database=None, deadline=None, suppress_health_check=HealthCheck)
settings.load_profile("fixed")  # the same examples in every run, however slow the machine is

SMALL = {"steps": 10, "batch": 8, "optimizer": {"lr": 0.02}, "runtime": {"device": "cpu", "threads": 1}}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make `xdist_group` count: pytest-xdist 3.8 notes a test's group in a field that pytest 9.2 no longer reads."""
    for item in items:
        if grouped := vars(item).get("_nodeid"):
            from _pytest.nodeid import coerce_node_id

            item._id = coerce_node_id(grouped)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def common_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder of all processes that run these tests side by side."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@pytest.fixture(autouse=True, scope="session")
def own_cache(common_folder: Path) -> Iterator[None]:
    """What can be computed again is kept for these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPDIT_CACHE", str(common_folder / "cache"))
        yield


@pytest.fixture
def small_recipe() -> Recipe:
    """10 steps of 8 digits: a second on a CPU."""
    return Recipe.model_validate(SMALL)


def small_architecture(modulation: str = "scale+shift+gate", **changes: Any) -> Architecture:
    fields = {"depth": 2, "width": 32, "heads": 2, "patch": 2, "channels": 1, "resolution": 8, "classes": 10}
    return Architecture(modulation=modulation, **{**fields, **changes})


@pytest.fixture
def small_denoiser() -> Denoiser:
    return build_denoiser(small_architecture(), Edm(sigma_data=0.75), seed=0)
