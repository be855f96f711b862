"""A real server of a workspace's gallery: as a command of its own, or in a thread of this process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from tests.gallery.small_gallery import ROOT
from ti_pipeline.gallery.patience import protocol_options


class Server:
    """`ti-pipeline gallery serve` on a free port; `kill` is SIGKILL, `start` begins again on the same port."""

    def __init__(self, workspace: Path, *options: str, secret: str = ""):
        self.workspace, self.options, self.port = workspace, options, 0
        self.environment = os.environ | {"PYTHONPATH": str(ROOT), "TI_PIPELINE_GALLERY_SECRET": secret}
        self.process: subprocess.Popen | None = None
        self.url = ""

    def start(self) -> None:
        command = [sys.executable, "-m", "ti_pipeline.cli", "gallery", "serve", "--workspace", str(self.workspace),
                   "--params", str(ROOT / "params.yaml"), "--port", str(self.port), *self.options]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment)
        said = self.process.stdout.readline()
        assert said.startswith("The gallery: http://"), said + self.process.stderr.read()
        self.url = said.split()[2]
        self.port = int(self.url.rstrip("/").rpartition(":")[2])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait(60)


@contextmanager
def serving(app: FastAPI, host: str = "127.0.0.1") -> Iterator[str]:
    """The application on a real port of this process, which is there at once; yields its address."""
    with socket.create_server((host, 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", **protocol_options()))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = server.force_exit = True
            thread.join()
