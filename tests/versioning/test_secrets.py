"""No secret in a log, an artifact, an exception or a file of the workspace."""

from __future__ import annotations

import logging
import traceback

import pytest

from tests.versioning.fault_proxy import faulty
from tests.versioning.small import configured, write
from ti_pipeline.errors import PipelineError
from ti_pipeline.versioning.inbox import bring_in
from ti_pipeline.versioning.publish import publish
from ti_pipeline.versioning.record import record
from ti_pipeline.versioning.storage import redact
from ti_pipeline.workspace import Workspace

TOKEN = "a-session-token-of-nobody"


def test_no_secret_anywhere(repository, server, bucket, admin, caplog, capfd, monkeypatch) -> None:
    """Three steps that succeed and the same that fail, at the most talkative level; then every file is searched."""
    write(repository / "artifacts" / "galleries" / "index.html", b"<h1>x</h1>")
    admin.put_object(Bucket=bucket, Key="drop/fern-new/a.png", Body=b"x")
    for name in ("botocore.auth", "botocore.endpoint"):  # as talkative as they would be in a fresh process
        monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
    caplog.set_level(logging.DEBUG)
    said = []
    with faulty(server.endpoint, die_after=1) as dead:
        for endpoint, name, secret in (
            (server.endpoint, bucket, server.secret),
            (server.endpoint, bucket, server.secret + "x"),
            (server.endpoint, "not-a-bucket-of-ours", server.secret),
            (dead.endpoint, bucket, server.secret),
        ):
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
            monkeypatch.setenv("AWS_SESSION_TOKEN", "" if secret == server.secret else TOKEN)
            sections = {
                "versions": {"commit": True},
                "publish": {"bucket": name},
                "inbox": {"bucket": name, "prefix": "drop", "quiet_seconds": 0},
            }
            params = configured(endpoint, name, **sections)
            place = Workspace.at(repository, "data/concepts")
            for step in (bring_in, publish, lambda place, params, say: record(place, params, say, force=True)):
                try:
                    said.append(str(step(place, params, said.append)))
                except PipelineError as error:
                    said += [repr(error), repr(error.__context__), *traceback.format_exception(error)]
    assert sum("refused" in line for line in said) >= 3 and any("no such bucket" in line for line in said)
    captured = capfd.readouterr()
    text = "\n".join([*said, caplog.text, captured.out, captured.err])
    assert not any(secret in text for secret in (server.secret, server.key, TOKEN))
    for path in repository.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(secret.encode() in data for secret in (server.secret, server.key, TOKEN)), path


@pytest.mark.parametrize(
    "text",
    [
        "GET /b?X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F2026&X-Amz-Signature=0123456789abcdef failed",
        "<AWSAccessKeyId>AKIAIOSFODNN7EXAMPLE</AWSAccessKeyId>",
        "Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/x, Signature=0123456789abcdef",
    ],
)
def test_what_signs_a_request_is_left_out(text) -> None:
    assert "AKIAIOSFODNN7EXAMPLE" not in redact(text) and "0123456789abcdef" not in redact(text)
