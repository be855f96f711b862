"""A Prefect server for one run, where no other is set.

The one that Prefect starts by itself is in the process group of the run. Ctrl-C in a terminal ends it before the run has said how
it ended, and the run then asks it for minutes; a SIGTERM to the run alone leaves it behind for ever. This one hears of neither: it
lives as long as a pipe that the run holds, whatever the run dies of.

python -m flows.server FD    serve on this listening socket until there is no more standard input
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from prefect.logging import get_logger
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, get_current_settings, temporary_settings

from ti_pipeline.errors import PipelineError

START_SECONDS = 300  # a new database takes two busy cores a minute


@contextmanager
def prefect_server() -> Iterator[None]:
    """Flows in this block have the server of the settings, or one that ends with this process. Raises PipelineError."""
    if PREFECT_API_URL.value():
        yield
        return
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        get_logger().info(f"Starting a server for this run at {address}")
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(listening.fileno())],
            cwd=Path(__file__).parents[1],  # and so this package, whatever is called `flows` where the run is
            env=os.environ | get_current_settings().to_environment_variables(exclude_unset=True),
            stdin=subprocess.PIPE, pass_fds=[listening.fileno()], start_new_session=True,
        )  # fmt: skip
    atexit.register(process.communicate)  # closes the pipe after Prefect has sent its last logs, and waits
    _wait(f"{address}/api/health")
    with temporary_settings({PREFECT_API_URL: f"{address}/api", PREFECT_UI_URL: ""}):  # it has no pages to link to
        yield


def _wait(health: str) -> None:
    """The system holds the question until the server takes it, and breaks it off when the server ends."""
    try:
        urllib.request.urlopen(health, timeout=START_SECONDS).close()
    except (urllib.error.URLError, OSError) as error:
        raise PipelineError(f"Prefect's server did not start ({error}). Its log is above. PREFECT_API_URL names another.") from None


def serve(descriptor: int) -> None:
    from prefect.server.api.server import create_app  # takes seconds, which the run does not have to wait

    app = create_app(ephemeral=True, final=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))

    def end_with_the_run() -> None:
        os.read(sys.stdin.fileno(), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_the_run, daemon=True).start()
    with socket.socket(fileno=descriptor) as listening:
        server.run(sockets=[listening])


if __name__ == "__main__":
    serve(int(sys.argv[1]))
