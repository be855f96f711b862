"""A Prefect server for one run, where no other is set.

The one that Prefect starts by itself is in the process group of the run. Ctrl-C in a terminal ends it before the run has said how
it ended, and the run then asks it for minutes; a SIGTERM to the run alone leaves it behind for ever. This one hears of neither: it
lives as long as a pipe that the run holds, whatever the run dies of. Its settings, its database and its log are its own, under
`artifacts/prefect` of the workspace: nothing that is set or broken for another server reaches it.

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn
from prefect.client.orchestration import get_client
from prefect.context import refresh_global_settings_context
from prefect.exceptions import PrefectException
from prefect.logging import get_logger
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

from tasks import PLATFORM
from ti_pipeline.errors import PipelineError

START_SECONDS = 300  # a new database takes two busy cores a minute
KEPT = ("PREFECT_LOGGING_",)  # how much a run says is the caller's
DATABASE = "prefect.db"


@contextmanager
def prefect_server(root: Path) -> Iterator[None]:
    """Flows in this block have the server of the settings, or one of the workspace `root` that ends with this process.

    Raises PipelineError when the one that is set does not answer, or the own one does not start.
    """
    if address := PREFECT_API_URL.value():
        _ask(address)
        yield
        return
    home = root / "artifacts" / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    settings = {"PREFECT_HOME": str(home), **PLATFORM}
    address = _start_anyhow(home, settings)
    with _environment(_without_prefect() | settings | {"PREFECT_API_URL": f"{address}/api"}):
        with temporary_settings({PREFECT_API_URL: f"{address}/api", PREFECT_UI_URL: ""}):  # it has no pages to link to
            yield


def _ask(address: str) -> None:
    try:
        with get_client(sync_client=True) as client:
            client.read_flow_runs(limit=1)
    except httpx.HTTPStatusError as error:
        status, hint = error.response.status_code, ""
        if status in (401, 403):
            hint = " Check PREFECT_API_AUTH_STRING or PREFECT_API_KEY."
        raise PipelineError(f"PREFECT_API_URL: the server at {address} answers with {status}.{hint}") from None
    except (httpx.HTTPError, httpx.InvalidURL, PrefectException, RuntimeError, OSError) as error:
        raise PipelineError(
            f"PREFECT_API_URL: no Prefect server answers at {address} ({error}). Start it, or unset PREFECT_API_URL: a run then has "
            "a server of its own."
        ) from None


def _start_anyhow(home: Path, settings: Mapping[str, str]) -> str:
    """A database that this Prefect cannot open, a newer one's or a broken one, is put aside: it holds past runs and nothing else."""
    try:
        return _start(home, settings)
    except PipelineError as error:
        if not (home / DATABASE).exists():
            raise
        aside = home / f"{DATABASE}.aside"
        (home / DATABASE).replace(aside)
        for rest in (f"{DATABASE}-wal", f"{DATABASE}-shm"):
            (home / rest).unlink(missing_ok=True)
        get_logger().warning(f"{error} It tries again without the record of past runs, which is put aside as {aside}.")
    return _start(home, settings)


def _start(home: Path, settings: Mapping[str, str]) -> str:
    """The address of a server that answers; it ends with this process."""
    here = Path(__file__).parents[1]  # of this package, whatever is called `flows` where the run is
    environment = _without_prefect() | dict(settings) | {
        # relative to the server's folder: a path in a URL would end at its first question mark
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{DATABASE}",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(here), os.environ.get("PYTHONPATH")))),
    }  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as listening, (home / "server.log").open("wb") as log:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        get_logger().info(f"Starting a server for this run at {address}")
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(listening.fileno())], cwd=home, env=environment,
            stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, pass_fds=[listening.fileno()], start_new_session=True,
        )  # fmt: skip
    atexit.register(process.communicate)  # closes the pipe after Prefect has sent its last logs, and waits
    try:  # the system holds the question until the server takes it, and breaks it off when the server ends
        urllib.request.urlopen(f"{address}/api/health", timeout=START_SECONDS).close()
    except (urllib.error.URLError, OSError):
        process.kill()
        process.wait()
        raise PipelineError(f"Prefect's server did not start. {home / 'server.log'} says why.") from None
    return address


def _without_prefect() -> dict[str, str]:
    """This process's environment without what is set for Prefect."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_") or name.startswith(KEPT)}


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """The whole environment and what Prefect has read from it, here and in every process that is started from here."""
    before = dict(os.environ)
    _replace(wanted)
    try:
        yield
    finally:
        _replace(before)


def _replace(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    refresh_global_settings_context()


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
