"""The page that follows a sweep, asked for over loopback; tests/slow/test_pages.py looks at it in a browser."""

import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from mpdit.errors import InputError
from sweeps.report.live_page import watched
from sweeps.storage.events import Progress, SweepStarted, TrialStarted
from sweeps.storage.layout import Storage, locked
from tests.sweeps.conftest import ended, made, plan_of, scored

AXES = {"model.modulation": ["scale", "rotation"], "ema.sigma_rel": [0.05, 0.1]}


def asked(address: str, path: str = "/", **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(address + path, headers=headers)) as answer:
        return str(answer.read().decode())


def test_the_page_grows_with_the_ledger(tmp_path: Path) -> None:
    storage, plan = Storage(tmp_path), plan_of(AXES)
    with watched(storage, "made", 0) as address:
        assert "Nothing has been reported yet" in asked(address)  # a sweep that has not begun
        ledger = made(storage, plan)
        ledger.append(SweepStarted("s", 2))
        assert "2 pending" in asked(address)
        with locked(storage.lock("made"), "sweep made"):
            trial = plan.trials[0].id
            ledger.append(TrialStarted(trial))
            ledger.append(Progress(trial, 300, {"loss": 0.625, "images_per_second": 1280.0, "magnitude_drift": 0.1}))
            folder = storage.trial(trial) / "samples"
            folder.mkdir(parents=True)
            for step in (30, 300):
                Image.new("L", (8, 8)).save(folder / f"step-{step:08d}.png")
            page, before = asked(address), asked(address, "/version")
            assert "Running: 1 running, 1 pending" in page
            assert ">300/600<" in page
            assert ">30 s<" in page  # 300 steps of 128 images at 1,280 a second
            assert "Samples of trial" in page
            assert "at step 300" in page
            assert 'at step 30"' not in page  # the newest alone
            ledger.append(scored(plan, 0, 0, 2.5))
            assert asked(address, "/version") != before
            assert '<td class="n">2.500</td>' in asked(address)
            ledger.append(ended(plan, 0))
        assert "Not running: 1 completed, 1 pending" in asked(address)
        assert asked(address) == asked(address)


def test_what_is_not_the_page_or_not_this_machine_is_refused(tmp_path: Path) -> None:
    with watched(Storage(tmp_path), "a'b<i>", 0) as address:
        assert "<i>" not in asked(address).split("<style>")[0]
        for path, host, code in (("/../sweep.yaml", "127.0.0.1", 404), ("/", "evil.example", 403), ("/", "", 403)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                asked(address, path, Host=f"{host}:1")
            assert refused.value.code == code
            refused.value.close()
        assert asked(address, Host="localhost:5001")


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with (
            pytest.raises(InputError, match="cannot be used"),
            watched(Storage(tmp_path), "x", holder.getsockname()[1]),
        ):
            pass
