"""What a run takes of electricity. The counters are made up, in a folder as Linux's: the machine's edge."""

import json
from pathlib import Path

import pytest

from mpdit.run_folder import RECIPE
from pipelines.training import energy
from pipelines.training.energy import ENERGY, Counter, Meter, counters

CORES = 4


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two processors, and what Linux counts besides them, each at 1 J of at most 100 J."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "powercap")
    monkeypatch.setattr("os.cpu_count", lambda: CORES)
    names = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:0:0": "dram", "intel-rapl:2": "psys"}
    for zone, name in names.items():
        folder = tmp_path / "powercap" / zone
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text("100000000\n")
        at(folder, 1.0)
    return [tmp_path / "powercap" / zone for zone in ("intel-rapl:0", "intel-rapl:1")]


def at(zone: Path, joules: float) -> None:
    (zone / "energy_uj").write_text(f"{round(joules * 1e6)}\n")


def test_a_run_is_charged_with_its_threads_part_of_all_sockets(sockets: list[Path], tmp_path: Path) -> None:
    meter = Meter(tmp_path, counters(gpus=0, threads=1))
    with meter.running():
        at(sockets[0], 21)
        at(sockets[1], 61)
        assert meter.metrics() == {"energy_joules": (20 + 60) / CORES}
        at(sockets[0], 31)
    assert meter.metrics() == {"energy_joules": (30 + 60) / CORES}


def test_a_counter_that_begins_again_is_counted_through(sockets: list[Path], tmp_path: Path) -> None:
    meter = Meter(tmp_path, counters(gpus=0, threads=CORES))
    with meter.running():
        at(sockets[0], 90)
        meter.metrics()
        at(sockets[0], 10)
    assert meter.metrics() == {"energy_joules": pytest.approx(89 + 20)}


def test_the_joules_go_on_over_a_kill_and_what_ran_between_is_not_the_run_s(
    sockets: list[Path], tmp_path: Path
) -> None:
    killed = Meter(tmp_path, counters(gpus=0, threads=CORES))
    killed._begin()
    (tmp_path / RECIPE).touch()
    at(sockets[0], 6)
    killed.metrics()
    at(sockets[0], 50)  # after the last look: lost with the kill
    continued = Meter(tmp_path, counters(gpus=0, threads=CORES))
    with continued.running():
        at(sockets[0], 53)
    assert continued.metrics() == {"energy_joules": 5 + 3}


def test_where_a_part_of_the_past_was_not_counted_nothing_is_told(sockets: list[Path], tmp_path: Path) -> None:
    (tmp_path / RECIPE).touch()  # it was trained where nothing told
    with (meter := Meter(tmp_path, counters(gpus=0, threads=1))).running():
        assert meter.metrics() == {}
    (tmp_path / ENERGY).write_text(json.dumps({"joules": 5.0}))  # it was counted, and goes on where nothing tells
    with (meter := Meter(tmp_path, [])).running():
        assert meter.metrics() == {}
    assert not (tmp_path / ENERGY).exists()


def test_a_counter_that_fails_ends_no_run(tmp_path: Path) -> None:
    answers = iter([1.0])

    def read() -> float:
        for answer in answers:
            return answer
        raise OSError("the GPU is lost")

    meter = Meter(tmp_path, [Counter(read, fraction=1.0)])
    with meter.running():
        assert meter.metrics() == {}
    assert not (tmp_path / ENERGY).exists()


def test_counters_that_only_the_administrator_may_read_tell_nothing(
    sockets: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_text = Path.read_text

    def refused(path: Path, *rest: str) -> str:  # tests may be run by the administrator, whom no mode bits stop
        if path.name == "energy_uj":
            raise PermissionError(path)
        return read_text(path, *rest)

    monkeypatch.setattr(Path, "read_text", refused)
    assert counters(gpus=0, threads=1) == []


def test_a_machine_without_counters_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    assert counters(gpus=0, threads=1) == []


def test_half_a_card_is_charged_with_half_of_what_it_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pynvml, torch = pytest.importorskip("pynvml"), pytest.importorskip("torch")
    millijoules = iter([1000, 1000, 5000])  # asked whether it tells; at the beginning; at the end
    card = type("Card", (), {"uuid": "12ab"})  # the machine's edge: a card, and the driver's library
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: {"GPU-12ab": "card"}[uuid])
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda handle: next(millijoules))
    meter = Meter(tmp_path, counters(gpus=0.5, threads=1))
    with meter.running():
        pass
    assert json.loads((tmp_path / ENERGY).read_text()) == {"joules": 2.0}


def test_a_card_whose_driver_does_not_answer_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    assert counters(gpus=1, threads=1) == []
