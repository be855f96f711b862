"""S3-compatible storage: a client, with the endpoint from the settings and credentials from elsewhere, and failures explained."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
)

from ti_pipeline.errors import PipelineError
from ti_pipeline.versioning.lock import dvc_folder
from ti_pipeline.versioning.settings import Storage

REMOTE = "storage"  # its name in `.dvc/config`
ATTEMPTS = 4  # of one request
TRIES = 5  # of what matters most, each of so many attempts
CONNECT_SECONDS, READ_SECONDS = 5, 30
SKEW = timedelta(minutes=15)  # between two clocks, past which no signature counts
T = TypeVar("T")
_DENIED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AllAccessDisabled", "403"}
_NO_BUCKET = {"NoSuchBucket"}
_TALKATIVE = ("botocore.auth", "botocore.endpoint")  # at DEBUG they write what signs a request, the session token among it
_SECRETS = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key", "aws_session_token": "session_token"}


class StorageError(PipelineError):
    """The storage did not take or give what was asked for; the text says what to do. `passing` when a later attempt may do."""

    def __init__(self, message: str, *, passing: bool = False):
        super().__init__(message)
        self.passing = passing
        self.status = 3 if passing else 2


class NoServer(StorageError):
    """Nothing answers at the endpoint: trying again at once is pointless."""


@dataclass(frozen=True)
class Place:
    """A bucket and a prefix in it, and the client that reaches them; `endpoint` is null for AWS."""

    client: Any
    bucket: str
    prefix: str
    endpoint: str | None

    def key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def __str__(self) -> str:
        return f"{self.url} at {self.endpoint}" if self.endpoint else self.url


def connect(storage: Storage, bucket: str, prefix: str, root: Path) -> Place:
    """`root` is the workspace, whose `.dvc/config.local` may hold the credentials; without, AWS's usual chain is asked."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.INFO)
    settings = credentials(root)
    profile = settings.pop("profile", None)
    try:
        session = boto3.Session(profile_name=profile, region_name=storage.region, **settings)
        client = session.client("s3", endpoint_url=storage.endpoint, config=client_config(storage))
    except (BotoCoreError, ValueError) as error:
        raise StorageError(f"storage: {error}. Check `storage` in params.yaml and the credentials.") from None
    return Place(client, bucket, prefix.strip("/"), storage.endpoint)


def client_config(storage: Storage) -> Config:
    style = "path" if storage.endpoint else "auto"
    return Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS}, connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS,
        max_pool_connections=storage.jobs, s3={"addressing_style": style},
    )  # fmt: skip


def credentials(root: Path) -> dict[str, str]:
    """What `.dvc/config.local` and the other levels of DVC's configuration say about the remote, in boto3's words."""
    from dvc.config import Config as DvcConfig

    folder = dvc_folder(root)
    if not folder:
        return {}
    remote = DvcConfig(str(folder)).get("remote", {}).get(REMOTE, {})
    found = {boto: remote[dvc] for boto, dvc in _SECRETS.items() if remote.get(dvc)}
    return found | ({"profile": remote["profile"]} if remote.get("profile") else {})


def check(place: Place) -> None:
    """Raise StorageError with the reason when nothing can be read there, before anything is started."""

    def ask() -> None:
        with explained(place):
            place.client.list_objects_v2(Bucket=place.bucket, Prefix=place.prefix, MaxKeys=1)

    again(ask)


def again(work: Callable[[], T]) -> T:
    """`work`, repeated where a connection has broken: the client's own attempts may all meet connections that are about to."""
    for _ in range(TRIES - 1):
        try:
            return work()
        except StorageError as error:
            if isinstance(error, NoServer) or not error.passing:
                raise
    return work()


@contextmanager
def explained(place: Place) -> Iterator[None]:
    """Everything that the client raises becomes a StorageError; no secret is in its text."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise explain(error, place) from None


def explain(error: BaseException, place: Place) -> StorageError:
    """What went wrong, where, and what to do; from boto3's errors and from those that DVC's S3 file system makes of them."""
    code, status = "", 0
    if isinstance(error, ClientError):
        code, status = error.response["Error"].get("Code", ""), error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return StorageError(
            f"{place}: no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile, or put access_key_id and "
            f"secret_access_key of the remote `{REMOTE}` into .dvc/config.local."
        )
    if code == "RequestTimeTooSkewed" or (status == 403 and _skewed(error)):
        return StorageError(
            f"{place}: the clocks of this machine and of the server differ by more than {SKEW.seconds // 60} minutes. Set this machine's "
            "clock, for example with NTP, and run this again."
        )
    if code in _DENIED or status == 403 or isinstance(error, PermissionError):
        return StorageError(f"{place}: the key is refused ({code or 'AccessDenied'}). Check the credentials and their permissions there.")
    if code in _NO_BUCKET:
        return StorageError(f"{place}: there is no such bucket. Create it, or correct `storage.bucket` in params.yaml.")
    if isinstance(error, (EndpointConnectionError, ConnectTimeoutError)):
        return NoServer(f"{place}: no server answers. Start it, or correct `storage.endpoint` in params.yaml.", passing=True)
    text = redact(" ".join(str(error).split()) or type(error).__name__)
    passing = status >= 500 or status == 429 or not isinstance(error, ClientError)
    return StorageError(f"{place}: {text}. What has arrived is kept: the same command continues from there.", passing=passing)


def _skewed(error: BaseException) -> bool:
    """By the server's own date: the answer to a HEAD has no code."""
    date = error.response["ResponseMetadata"].get("HTTPHeaders", {}).get("date", "") if isinstance(error, ClientError) else ""
    try:
        return abs(datetime.now(UTC) - parsedate_to_datetime(date)) > SKEW
    except (TypeError, ValueError):  # none, one without a zone, or something else
        return False


def redact(text: str) -> str:
    """Without what signs a request: servers and libraries quote it in their errors."""
    text = re.sub(r"(?i)((?:signature|credential|security-token|awsaccesskeyid|authorization)[\"']?\s*[=:]\s*)[^\s&\"',;]+", r"\1…", text)
    return re.sub(r"\b(?:AKIA|ASIA)[0-9A-Z]{12,}\b", "…", text)
