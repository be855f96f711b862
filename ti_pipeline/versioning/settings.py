"""The sections of `params.yaml` that no result depends on: where things are kept, recorded, taken in and published."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from pydantic import AfterValidator, Field

from ti_pipeline.errors import without_passwords
from ti_pipeline.section import Positive, Section


def _for_all_to_read(address: str) -> str:
    """These settings are in Git, in logs and in published links."""
    if without_passwords(address) != address:
        raise ValueError("leave the name and the password out; keys come from AWS's usual chain or .dvc/config.local")
    return address


def _each_its_own(repositories: dict[str, str]) -> dict[str, str]:
    twice = [name for name, count in Counter(repositories.values()).items() if count > 1]
    if twice:
        raise ValueError(f"two concepts would be in {twice[0]}. Give each a repository of its own")
    return repositories


Address = Annotated[str, AfterValidator(_for_all_to_read)]
Repository = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]


class Storage(Section):
    """S3-compatible storage. Keys never stand here: they come from AWS's usual chain or `.dvc/config.local`."""

    endpoint: Address | None
    """Address of the server, such as `http://127.0.0.1:8333` for `make s3`. `null` is AWS."""
    region: str | None
    """Region of the buckets. `null` asks AWS's usual chain."""
    bucket: str | None
    """Bucket for DVC's objects. With `null` nothing is pushed."""
    prefix: str
    """Folder in the bucket."""
    jobs: Positive
    """[transfers] At the same time. More use a fast network better."""


class Versions(Section):
    """The last step of a run: what is recorded of it."""

    record: bool
    """Commit to DVC what has changed."""
    push: bool
    """Upload what is recorded to `storage.bucket`, if one is set."""
    commit: bool
    """Commit DVC's record and `params.yaml` to Git."""
    tag: bool
    """With `commit`: tag each such commit `run/1`, `run/2` and so on."""
    register_: bool = Field(alias="register")
    """With `commit`: register a version of every learnt word that has changed."""


class Inbox(Section):
    """A place in a bucket where people drop folders of pictures; a run takes them in first."""

    bucket: str | None
    """Bucket of the inbox. With `null` there is none."""
    prefix: str
    """Folder in the bucket; each folder below it is an image set."""
    quiet_seconds: Annotated[int, Field(ge=0)]
    """[seconds] A set with a file younger than this is taken to be still uploading and waits for the next run."""


class Publish(Section):
    """Galleries for readers, with the learnt words as other tools read them."""

    bucket: str | None
    """Bucket to publish to. With `null` nothing is published."""
    prefix: str
    """Folder in the bucket."""
    url: Address | None
    """Address at which readers see the folder. `null` makes it from endpoint, bucket and prefix."""
    keep: Positive
    """[builds] Newest builds that stay; older ones are removed once they are a day old."""
    hub: Annotated[dict[str, Repository], AfterValidator(_each_its_own)]
    """Concepts whose words go to the Hugging Face hub, each with its repository: `{our-mascot: our-team/our-mascot}`. One that is not there
    is made. The token comes from `hf auth login` or HF_TOKEN, and never stands here."""
    hub_private: bool
    """Repositories that are made there are for their owners alone, until they open them."""
