"""Notices: which events call for one, and that a command and a webhook get it; a real server on loopback."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from sweeps.execution.notify import Notifier, Teller
from sweeps.planning.plan import Plan
from sweeps.storage.events import SweepEnded
from sweeps.storage.trial_status import TrialStatus
from tests.sweeps.conftest import ended, plan_of, scored

AXES = {"model.modulation": ["scale", "rotation"], "ema.sigma_rel": [0.05, 0.1]}


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The address of a server, and what it was sent."""
    got: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", got
    server.shutdown()
    server.server_close()


def test_what_calls_for_a_notice(small_plan: Plan) -> None:
    teller = Teller(small_plan)
    events = [
        scored(small_plan, 0, 0, 3.0),
        scored(small_plan, 0, 1, 2.5),
        ended(small_plan, 0),  # two better cells, one notice
        scored(small_plan, 1, 0, 2.8),
        ended(small_plan, 1),  # no better
        ended(small_plan, 2, "failed", reason="it broke"),
        ended(small_plan, 3, "diverged"),  # an outcome, not a failure
        SweepEnded(TrialStatus.FAILED),
    ]
    kinds = [notice.kind if (notice := teller.notice(line)) else None for line in events]
    assert kinds == [None, None, "best", None, None, "fail", None, "end"]


def test_what_was_the_best_before_is_not_told_again(small_plan: Plan) -> None:
    teller = Teller(small_plan, [scored(small_plan, 0, 0, 3.0)])
    assert teller.notice(ended(small_plan, 0)) is None


def test_few_samples_are_no_best(small_plan: Plan) -> None:
    teller = Teller(small_plan)
    teller.notice(scored(small_plan, 0, 0, 0.1, samples=250))
    assert teller.notice(ended(small_plan, 0)) is None


def test_a_command_and_a_webhook_are_told(
    tmp_path: Path, webhook: tuple[str, list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, got = webhook
    monkeypatch.setenv("MY_HOOK", address)
    notify = {"command": f'echo "$MPDIT_KIND: $MPDIT_TEXT" >> {tmp_path}/told', "webhook": "$MY_HOOK", "when": ["end"]}
    plan = plan_of(AXES, notify=notify)
    with Notifier(plan, [], plan.spec.notify) as notifier:
        for line in (scored(plan, 0, 0, 3.0), ended(plan, 0), SweepEnded(TrialStatus.COMPLETED)):
            notifier(line)
    text = f"sweep made: completed; fd_digits_2k 3.000: {plan.trials[0].id} scale σ_rel 0.05"
    assert (tmp_path / "told").read_text() == f"end: {text}\n"
    assert [(one["kind"], one["text"]) for one in got] == [("end", text)]


@pytest.mark.parametrize("notify", [{"command": "exit 3"}, {"webhook": "http://127.0.0.1:9/"}, {"webhook": "no url"}])
def test_a_notice_that_fails_is_a_warning(notify: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    plan = plan_of(AXES, notify=notify)
    with Notifier(plan, [], plan.spec.notify) as notifier:
        notifier(SweepEnded(TrialStatus.COMPLETED))
    assert "was not sent" in caplog.text
