"""Runs the server of a workspace's gallery until it is stopped."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from ti_pipeline.choices.files import default_url
from ti_pipeline.choices.store import Store
from ti_pipeline.errors import ParamsError
from ti_pipeline.gallery.guard import host_name
from ti_pipeline.gallery.patience import protocol_options
from ti_pipeline.gallery.serve import LOOPBACK, make_app
from ti_pipeline.params import Params
from ti_pipeline.terminal import say
from ti_pipeline.workspace import Workspace

SECRET = "TI_PIPELINE_GALLERY_SECRET"


@dataclass(frozen=True)
class Door:
    """Where a server listens and whom it lets in: `allowed` are names that visitors come by, beside its own."""

    host: str
    port: int
    secret_file: Path | None = None
    allowed: Sequence[str] = ()


def run_server(workspace: Workspace, params: Params, door: Door, choices: str | None) -> None:
    """Serve until SIGINT or SIGTERM. Raises ParamsError for what is wrong before anything is served."""
    if not (workspace.galleries / "index.html").is_file():
        raise ParamsError(f"{workspace.galleries} holds no gallery yet. Run `ti-pipeline gallery` first.")
    url = choices or default_url(workspace)
    if "://" not in url:
        raise ParamsError(f"--choices {url}: expected a URL such as sqlite:///choices.sqlite or postgresql://user@host/name.")
    host, local = door.host, door.host in LOOPBACK
    secret = _secret(door.secret_file)
    names = _names(door)
    listening = _listen(host, door.port)
    store = Store(url)
    try:
        shown = f"[{host}]" if ":" in host else "127.0.0.1" if host == "0.0.0.0" else host
        say(f"The gallery: http://{shown}:{listening.getsockname()[1]}/  (Ctrl+C stops it)")
        if not local and not secret:
            say(f"Anyone who can reach {host} can look and choose. To ask for a secret, give --secret-file FILE.", err=True)
        app = make_app(workspace.galleries, store, title=params.gallery.title, secret=secret, names=names, by_address=not local)
        config = uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=5, **protocol_options())
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        listening.close()
        store.close()


def _names(door: Door) -> set[str]:
    """What the server answers to: itself as it was told to listen, this machine where it listens to others, and what was allowed."""
    names = {*LOOPBACK, door.host.lower()}
    if door.host not in LOOPBACK:
        own = socket.gethostname().lower()
        names |= {own, own.partition(".")[0]}
    for name in door.allowed:
        found = host_name(name)
        if found is None:
            raise ParamsError(f"--allowed-host {name}: expected a host name such as gallery.example.com, without https:// and path.")
        names.add(found)
    return names


def _secret(path: Path | None) -> str | None:
    if path is None:
        return os.environ.get(SECRET) or None
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"--secret-file {path}: cannot be read ({error}).") from None
    if not secret:
        raise ParamsError(f"--secret-file {path}: is empty.")
    return secret


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ParamsError(f"{host}:{port} cannot be used: {error.strerror}. Choose another with --port, or 0 for any.") from None
    listening.listen(128)
    return listening
