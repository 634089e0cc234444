"""A page that follows a sweep: its report as far as it is known, running trials and their samples, on loopback."""

import base64
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mpdit.errors import input_error
from mpdit.run_folder import PICTURES
from sweeps.planning.plan import make_plan
from sweeps.report.figures import label
from sweeps.report.page import render
from sweeps.report.svg import figure
from sweeps.results.ranking import rank_in
from sweeps.results.trial_states import TrialState, trial_states
from sweeps.spec.reading import read_spec
from sweeps.storage.events import CellScored, Progress
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import read
from sweeps.storage.open_storage import refresh
from sweeps.storage.trial_status import TrialStatus

HOST = "127.0.0.1"
TEMPLATE = Path(__file__).with_name("live.html")
MOST_TRIALS, MOST_PICTURES = 20, 4
# The document stays and its content is exchanged, so that nobody loses the place; what was unfolded stays so.
FOLLOW = """<script>
let seen = %r;
async function look() {
  try {
    const now = await (await fetch("version", {cache: "no-store"})).text();
    if (now !== seen) {
      const page = await (await fetch("./", {cache: "no-store"})).text();
      const fresh = new DOMParser().parseFromString(page, "text/html");
      const open = new Set([...document.querySelectorAll("details[open] summary")].map(e => e.textContent));
      for (const e of fresh.querySelectorAll("details summary")) e.parentElement.open = open.has(e.textContent);
      document.body.replaceChildren(...fresh.body.childNodes);
      seen = now;
    }
  } catch { document.getElementById("watching").textContent = "The server has ended; this is what it showed last."; }
  setTimeout(look, 2000);
}
setTimeout(look, 2000);
</script>"""
EMPTY = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>%s</title>
<style>:root { color-scheme: light dark; } body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem; }
th, td { text-align: left; padding-right: 1rem; } .soft { opacity: .7; }</style></head>
<body><h1>%s</h1><p>Nothing has been reported yet.</p><main></main></body></html>"""


class LivePage:
    """The page of one sweep, made anew when its ledger has grown."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.storage, self.name = storage, name
        self._lock = threading.Lock()  # one page is made at a time, for whoever asks
        self._made: tuple[str, bytes] = ("", b"")

    def version(self) -> str:
        """A text that changes with the ledger, and when the driver starts or ends."""
        if self.storage.bucket is not None:
            refresh(self.storage, self.name)
        ledger = self.storage.ledger(self.name)
        size = ledger.stat().st_size if ledger.exists() else 0
        return f"{size}-{self.storage.is_running(self.name)}"

    def html(self) -> bytes:
        """The page as it is now."""
        with self._lock:
            version = self.version()
            if version != self._made[0]:
                self._made = (version, self._page(version).encode())
            return self._made[1]

    def _page(self, version: str) -> str:
        if not self.storage.spec(self.name).exists():
            page, live = _empty(self.name), _section([], False, [])
        else:
            events = read(self.storage.ledger(self.name))
            plan = make_plan(read_spec(self.storage.spec(self.name)), events)
            alive = self.storage.is_running(self.name)
            states = list(trial_states(plan, events, alive).values())
            if any(isinstance(event, (Progress, CellScored)) for event in events):
                rows = rank_in(self.storage, plan, events)
                for trial in dict.fromkeys(row.trial for row in rows if row.value is not None):
                    self.storage.bring(trial, small=True)
                page = render(self.storage, plan, rows, events)
            else:
                page = _empty(self.name)
            live = _section(states, alive, _pictures(self.storage, states))
        return page.replace("<main>", f"{live}<main>", 1).replace("</body>", f"{FOLLOW % version}</body>", 1)


def _empty(name: str) -> str:
    return EMPTY % (escape(name), escape(name))


def _section(states: list[TrialState], alive: bool, pictures: list[dict[str, Any]]) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["figure"] = figure
    counts = Counter(str(state.status) for state in states)
    shown = [state for state in states if state.status is TrialStatus.RUNNING or state.status.is_fault]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        running=alive,
        counted=", ".join(f"{count} {status}" for status, count in counts.most_common()) or "no trials yet",
        states=[
            {**state.as_dict(), "settings": _settings(state), "left": _left(state.seconds_left)}
            for state in shown[:MOST_TRIALS]
        ],
        pictures=pictures,
    )


def _pictures(storage: Storage, states: list[TrialState]) -> list[dict[str, Any]]:
    """The newest samples of the running trials, as data URIs."""
    found = []
    for state in states:
        folder = storage.trial(state.trial.id) / PICTURES
        if state.status is TrialStatus.RUNNING and (drawn := sorted(folder.glob("step-*.png"))):
            address = "data:image/png;base64," + base64.b64encode(drawn[-1].read_bytes()).decode()
            step = int(drawn[-1].stem.removeprefix("step-"))
            found.append({"trial": state.trial.id, "settings": _settings(state), "step": step, "address": address})
    return found[:MOST_PICTURES]


def _settings(state: TrialState) -> str:
    return label(state.trial.params, list(state.trial.params))


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


@contextmanager
def watched(storage: Storage, name: str, port: int) -> Iterator[str]:
    """While open, the page of a sweep is served on this machine only; gives its address.

    Raises:
        InputError: The port cannot be used.
    """
    try:
        server = ThreadingHTTPServer((HOST, port), _handler(LivePage(storage, name)))
    except OSError as error:
        raise input_error(f"port {port} cannot be used", reason=error.strerror, hint="--port N") from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="watch", daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def _handler(page: LivePage) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer for the page and its version, to requests that name this machine (against DNS rebinding)."""
            if self.headers.get("Host", "").rpartition(":")[0] not in (HOST, "localhost"):
                self.send_error(403)
            elif self.path == "/":
                self._answer(page.html(), "text/html; charset=utf-8")
            elif self.path == "/version":
                self._answer(page.version().encode(), "text/plain")
            else:
                self.send_error(404)

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Print nothing: the terminal is the sweep's."""

    return Handler
