"""Galleries for readers, with the words in them: every build under a name of its own, and one page that says which build is shown.

<prefix>/index.html                    the pointer; the only object that ever changes, and only if nobody else has changed it
<prefix>/builds/<id>/galleries/…       of current concepts, as they lie in `artifacts/galleries`
<prefix>/builds/<id>/manifest.json     {path: [SHA-256, bytes]}; the id is its digest
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import mimetypes
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ti_pipeline.errors import PipelineError
from ti_pipeline.files import digest_value
from ti_pipeline.params import Params
from ti_pipeline.stages.collection import present
from ti_pipeline.versioning.lock import alone
from ti_pipeline.versioning.shown import for_readers, withheld
from ti_pipeline.versioning.storage import Place, again, check, connect, explained
from ti_pipeline.workspace import SLUG, Workspace

POINTER = "index.html"
FOREVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"
UNTOUCHED = timedelta(days=1)  # a build that is younger may be one that another run is uploading
TRIES = 5  # against others that publish at the same time
_TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".json": "application/json", ".webp": "image/webp", ".avif": "image/avif", ".safetensors": "application/octet-stream",
}  # fmt: skip
_NEWER = "another run has published a newer build"


@dataclass(frozen=True)
class Published:
    """`url` of the pointer; `objects` and `bytes` that were uploaded; `state` published, up-to-date, superseded (a newer
    run's build is there), withheld (the results here are not recorded, `reason` says why and what to do) or off (there is no bucket)."""

    state: str
    reason: str = ""
    url: str = ""
    build: str = ""
    objects: int = 0
    bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        if self.reason:
            return f"not published: {self.reason}"
        return f"{self.state}: {self.url} (build {self.build}, {self.objects} objects, {self.bytes} bytes uploaded)"


def publish(workspace: Workspace, params: Params, say: Any, began: datetime | None = None) -> Published:
    """Upload what has changed and switch the pointer. Readers see the old build or the new one, never parts of both.

    What current concepts own is published, no more, and to the place that params.yaml names only what is recorded, where DVC has a
    record and `versions.record` is true.
    `began` is when the run that made these galleries began: an older run never takes the place of a newer one's build.
    Earlier builds that show what is withdrawn by now are removed. Raises PipelineError; a second call continues from what has arrived.
    """
    section = params.publish
    if not section.bucket:
        return Published("off", "publish.bucket is not set in params.yaml")
    began = began or datetime.now(UTC)
    here = connect(params.storage, section.bucket, section.prefix, workspace.root)
    url = f"{(section.url or _address(here)).rstrip('/')}/{POINTER}"
    with alone(workspace.root, "publishing", say):
        files = for_readers(workspace)
        if why := withheld(workspace, params, files):
            return Published("withheld", why)
        check(here)
        listing = {name: [hashlib.sha256(data).hexdigest(), len(data)] for name, data in _read(files)}
        build = digest_value(listing)[:16]
        etag, shown = again(lambda: _pointer(here))
        if shown.get("builds", [""])[0] == build:
            _sweep(here, shown["builds"][: section.keep])  # what a killed run has left
            return Published("up-to-date", url=url, build=build)
        objects, size = _upload(here, build, files, listing, shown.get("builds", []), params.storage.jobs)
        for _ in range(TRIES):
            if shown.get("began", "") > began.isoformat():
                return Published("superseded", f"{_NEWER} ({shown['builds'][0]})", url, build, objects, size)
            earlier = [other for other in shown.get("builds", []) if other != build]
            withdrawn = _showing_others(here, earlier, present(workspace))
            history = [build, *(other for other in earlier if other not in withdrawn)][: section.keep]
            state = {"builds": history, "began": began.isoformat()}
            if again(partial(_switch, here, etag, state, params.gallery.title)):
                _remove(here, withdrawn)
                _sweep(here, history)
                return Published("published", url=url, build=build, objects=objects, bytes=size)
            etag, shown = again(lambda: _pointer(here))
    raise PipelineError(f"{here}: {TRIES} other runs have published in the meantime. Run it again.")


def content_type(name: str) -> str:
    suffix = f".{name.rsplit('.', 1)[-1].lower()}" if "." in name else ""
    return _TYPES.get(suffix) or mimetypes.types_map.get(suffix, "application/octet-stream")


def _read(files: dict[str, Any]) -> Iterable[tuple[str, bytes]]:
    for name, path in files.items():
        yield name, path.read_bytes()


def _upload(here: Place, build: str, files: dict[str, Any], listing: dict[str, list], earlier: list[str], jobs: int) -> tuple[int, int]:
    """Put what the build does not have yet, by a copy within the storage where an earlier build has the same bytes.

    The manifest goes first: it is what keeps another run from sweeping this build away while it is uploaded.
    """
    folder = f"builds/{build}"
    manifest = json.dumps(listing, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    _put(here, f"{folder}/manifest.json", manifest)
    there = again(lambda: _listed(here, f"{folder}/"))
    source = _earlier(here, earlier)

    def bring(name: str) -> int:
        digest, size = listing[name]
        key = f"{folder}/{name}"
        data = files[name].read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise PipelineError(f"{files[name]} has changed while it was being published. Run it again when no stage is running.")
        if there.get(here.key(key)) == hashlib.md5(data, usedforsecurity=False).hexdigest():
            return -1
        if digest in source and _copy(here, source[digest], key):
            return 0
        _put(here, key, data)
        return size

    with ThreadPoolExecutor(jobs) as pool:
        sizes = [size for size in pool.map(bring, listing) if size >= 0]
    return len(sizes), sum(sizes)


def _put(here: Place, name: str, data: bytes) -> None:
    extra = {"ContentDisposition": "attachment"} if name.endswith(".safetensors") else {}
    digest = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()  # the server refuses other bytes

    def put() -> None:
        with explained(here):
            here.client.put_object(
                Bucket=here.bucket, Key=here.key(name), Body=data, ContentType=content_type(name), CacheControl=FOREVER,
                ContentMD5=digest, **extra,
            )  # fmt: skip

    again(put)


def _copy(here: Place, source: str, name: str) -> bool:
    try:
        here.client.copy_object(Bucket=here.bucket, Key=here.key(name), CopySource={"Bucket": here.bucket, "Key": here.key(source)})
    except (BotoCoreError, ClientError):
        return False  # swept away meanwhile, or the connection broke: it is uploaded instead
    return True


def _earlier(here: Place, builds: list[str]) -> dict[str, str]:
    """{SHA-256: name} of the build that is shown."""
    return {digest: f"builds/{build}/{name}" for build in builds[:1] for name, (digest, _) in (_manifest(here, build) or {}).items()}


def _manifest(here: Place, build: str) -> dict[str, list] | None:
    """{name: [SHA-256, bytes]} of a build; None when the storage has none, or does not give it now."""
    try:
        answer = here.client.get_object(Bucket=here.bucket, Key=here.key(f"builds/{build}/manifest.json"))
        return json.loads(answer["Body"].read())
    except (BotoCoreError, ClientError, ValueError):
        return None


def _showing_others(here: Place, builds: list[str], slugs: set[str]) -> list[str]:
    """Those of the builds that hold something of a concept that is none of `slugs`."""
    owners = {build: {name.split("/")[1] for name in _manifest(here, build) or () if name.count("/") > 1} for build in builds}
    return [build for build, names in owners.items() if any(SLUG.fullmatch(name) and name not in slugs for name in names)]


def _listed(here: Place, below: str) -> dict[str, str]:
    """{key: ETag} below a name."""
    found: dict[str, str] = {}
    with explained(here):
        for page in here.client.get_paginator("list_objects_v2").paginate(Bucket=here.bucket, Prefix=here.key(below)):
            found |= {entry["Key"]: entry["ETag"].strip('"') for entry in page.get("Contents", [])}
    return found


def _pointer(here: Place) -> tuple[str, dict[str, Any]]:
    """The pointer's ETag and what it says, both empty where there is none."""
    with explained(here):
        try:
            answer = here.client.get_object(Bucket=here.bucket, Key=here.key(POINTER))
            page = answer["Body"].read().decode()
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return "", {}
            raise
    state = re.search(r'<script type="application/json" id="builds">(.*?)</script>', page, re.DOTALL)
    if not state:
        raise PipelineError(f"{here.url}/{POINTER} was not written by ti-pipeline. Remove it, or change `publish.prefix` in params.yaml.")
    return answer["ETag"], json.loads(state[1])


def _switch(here: Place, etag: str, state: dict[str, Any], title: str) -> bool:
    """Write the pointer if it is still the one that was read; False when it is not."""
    target = f"builds/{state['builds'][0]}/galleries/index.html"
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f'<meta http-equiv="refresh" content="0; url={target}"><link rel="canonical" href="{target}">\n'
        f'<script type="application/json" id="builds">{json.dumps(state, sort_keys=True)}</script></head>\n'
        f'<body><a href="{target}">{html.escape(title)}</a></body></html>\n'
    )
    with explained(here):
        try:
            _put_if(here, text.encode(), etag)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
                return False  # somebody else's, or our own whose answer was lost: the next look tells
            raise
    return True


def _put_if(here: Place, data: bytes, etag: str) -> None:
    condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
    here.client.put_object(
        Bucket=here.bucket, Key=here.key(POINTER), Body=data, ContentType=_TYPES[".html"], CacheControl=ASK_AGAIN, **condition
    )


def _sweep(here: Place, keep: list[str]) -> None:
    """Remove builds that are neither kept nor so young that somebody may be uploading them. A failure is left to the next run."""
    try:
        for build in _untouched(here, "builds/").keys() - set(keep):
            keys = _untouched(here, f"builds/{build}/").get(build, [])  # looked at again: another run may be bringing it back just now
            _delete(here, keys)
    except (BotoCoreError, ClientError):
        return


def _remove(here: Place, builds: list[str]) -> None:
    """Remove builds whole; what a broken connection leaves of them is swept away once it is old."""
    with suppress(BotoCoreError, ClientError, PipelineError):
        for build in builds:
            _delete(here, [*_listed(here, f"builds/{build}/")])


def _delete(here: Place, keys: list[str]) -> None:
    for start in range(0, len(keys), 1000):
        gone = [{"Key": key} for key in keys[start : start + 1000]]
        here.client.delete_objects(Bucket=here.bucket, Delete={"Objects": gone, "Quiet": True})


def _untouched(here: Place, below: str) -> dict[str, list[str]]:
    """{build: its keys} of those builds below a name that nobody has written to lately."""
    ages: dict[str, datetime] = {}
    keys: dict[str, list[str]] = {}
    for page in here.client.get_paginator("list_objects_v2").paginate(Bucket=here.bucket, Prefix=here.key(below)):
        for entry in page.get("Contents", []):
            build = entry["Key"].removeprefix(here.key("builds/")).split("/", 1)[0]
            ages[build] = max(ages.get(build, entry["LastModified"]), entry["LastModified"])
            keys.setdefault(build, []).append(entry["Key"])
    return {build: names for build, names in keys.items() if datetime.now(UTC) - ages[build] > UNTOUCHED}


def _address(here: Place) -> str:
    path = f"{here.bucket}/{here.prefix}".rstrip("/")
    return f"{here.endpoint.rstrip('/')}/{path}" if here.endpoint else f"https://{here.bucket}.s3.amazonaws.com/{here.prefix}".rstrip("/")
