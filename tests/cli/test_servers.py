"""Commands that serve pages end when they are told to."""

import subprocess
import sys
from pathlib import Path

CODE = Path(__file__).resolve().parents[2]


def test_a_server_in_the_background_ends_on_sigint() -> None:
    """A shell that is not interactive starts `mpdit ui &` with SIGINT ignored."""
    code = (
        "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from cli.services import end_on_interrupt; end_on_interrupt()\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT); signal.pause()\n"
        "except KeyboardInterrupt:\n    print('ended')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CODE, capture_output=True, text=True, timeout=60)
    assert done.stdout == "ended\n", done.stderr
