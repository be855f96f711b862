from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from ti_pipeline.choices.files import gather
from ti_pipeline.errors import ConceptError, ParamsError, without_passwords
from ti_pipeline.params import load
from ti_pipeline.terminal import Discreet
from ti_pipeline.workspace import Workspace

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1:1"
ADDRESSES = (
    f"postgresql://ann:hunter2@{HOST}/x", f"postgresql:/ann:hunter2@{HOST}/x", f"postgresql:ann:hunter2@{HOST}", f"ann:hunter2@{HOST}",
    f"htp//ann:hunter2@{HOST}", f"http://ann:hunt/er2@ter2@{HOST}/api", "https://bucket/key?X-Amz-Signature=hunter2&a=b",
    f"postgresql://{HOST}/x?password=hunter2",
)  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_error_shows_the_password_of_an_address(address: str, tmp_path: Path):
    """However it is misspelt, and whatever stands around it."""
    for text in (address, f"a: '{address}' cannot be read", f"first\n{address}.", f"({address})"):
        for error in (ParamsError(text), ConceptError("fox", text)):
            assert "ter2" not in str(error) and "ter2" not in getattr(error, "reason", "") and "***" in str(error)
    with pytest.raises(ParamsError) as error:
        gather(Workspace.at(tmp_path, "concepts"), address)
    assert "ter2" not in str(error.value)


def test_a_traceback_shows_none_either():
    try:
        raise RuntimeError(f"cannot reach {ADDRESSES[0]}")
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "trying %s", (ADDRESSES[1],), sys.exc_info())
    told = Discreet("%(message)s").format(record)
    assert "Traceback" in told and "trying postgresql:/ann:***@127.0.0.1:1/x" in told and "hunter2" not in told


@pytest.mark.parametrize(
    "text",
    ["a photo of a <fox>: 12:30", "http://127.0.0.1:8333", "s3://bucket/prefix at http://[::1]:80", "fox@v3: not there", "a@b.example",
     "concept.yaml: owner: team: a@b.example", "C:\\a", "lora:fox:0.8"],
)  # fmt: skip
def test_other_texts_stay_as_they_are(text: str):
    assert without_passwords(text) == text


def test_settings_that_everybody_reads_take_no_password():
    for key in ("storage.endpoint", "publish.url"):
        with pytest.raises(ParamsError, match=f"{key}: .*leave the name and the password out") as error:
            load(ROOT / "params.yaml", [f"{key}=https://ann:hunter2@host"])
        assert "hunter2" not in str(error.value)
