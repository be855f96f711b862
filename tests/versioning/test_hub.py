"""Words on the hub: the real client against a server that answers as the hub does for the calls that are made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import save_file

from tests.gallery.small_gallery import add_candidates, make_workspace, small_params, whole
from tests.hub_server import TOKEN, Hub, hub_server, use
from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.params import Params, load
from ti_pipeline.versioning.hub import REPOSITORY, upload
from ti_pipeline.words.export import export_of
from ti_pipeline.words.incoming import located, words_at
from ti_pipeline.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
NAME = "team/ti-toy"


@pytest.fixture(autouse=True)
def credentials() -> None:
    """No bucket, and no server for one."""


@pytest.fixture()
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_server() as running:
        use(running, monkeypatch, str(tmp_path / "cache"))
        yield running


@pytest.fixture()
def toy(tmp_path: Path) -> Workspace:
    """A concept with candidates and an evaluation."""
    return whole(tmp_path / "here")[0]


def to(repositories: dict[str, str], **more: object) -> Params:
    params = small_params()
    return params.model_copy(update={"publish": params.publish.model_copy(update={"hub": repositories, **more})})


def files_of(workspace: Workspace, concept: str = "toy", name: str = NAME) -> dict[str, bytes]:
    """What `ti-pipeline export` writes into the repository's folder; its card names the hub's instead of the folder."""
    files = export_of(workspace, read_manifest(workspace, concept), f"ti-{concept}").files(REPOSITORY)
    files[f"ti-{concept}/README.md"] = files[f"ti-{concept}/README.md"].replace(f'("ti-{concept}")'.encode(), f'("{name}")'.encode())
    return {name.removeprefix(f"ti-{concept}/"): content for name, content in files.items()}


def test_a_word_goes_up_once_with_its_card_and_comes_back_by_its_name(hub: Hub, toy: Workspace) -> None:
    (done,) = upload(toy, to({"toy": NAME}), print)
    assert (done.state, done.url, done.reason) == ("uploaded", f"{hub.url}/{NAME}", "")
    there = hub.repositories[NAME]
    assert {name: there[name] for name in there if name != ".gitattributes"} == files_of(toy)
    assert f'pipe.load_textual_inversion("{NAME}")' in there["README.md"].decode() and "| this word | 0.710" in there["README.md"].decode()
    assert hub.private[NAME] and hub.messages == ["The word <toy>"]
    hub.asked.clear()
    assert [str(each) for each in upload(toy, to({"toy": NAME}), print)] == [f"toy: up-to-date: {hub.url}/{NAME}"]
    assert hub.asked == []  # nothing but a look at what is there
    (word,) = words_at(located(NAME).path)
    own = export_of(toy, read_manifest(toy, "toy"), "ti-toy").rows["text"]
    assert word.name == "<toy>" and torch.equal(word.rows["text"], torch.from_numpy(own))


def test_only_what_has_changed_goes_up_and_what_is_gone_goes_away(hub: Hub, toy: Workspace) -> None:
    upload(toy, to({"toy": NAME}, hub_private=False), print)
    assert not hub.private[NAME] and "pictures/1.png" in hub.repositories[NAME]
    hub.repositories[NAME]["LICENSE"] = b"put there by hand"
    hub.asked.clear()
    shutil.rmtree(toy.candidates("toy"))
    add_candidates(toy, prompts=("a photo of a <toy>",))
    assert [each.state for each in upload(toy, to({"toy": NAME}), print)] == ["uploaded"]
    assert not [asked for asked in hub.asked if asked.startswith("PUT") or "create" in asked]  # the card alone is new
    assert hub.repositories[NAME].keys() - {".gitattributes"} == files_of(toy).keys() | {"LICENSE"}
    save_file({"<toy>": np.zeros((1, 32), np.float32)}, toy.embedding("toy"))
    assert [each.state for each in upload(toy, to({"toy": NAME}), print)] == ["uploaded"]
    assert hub.repositories[NAME]["learned_embeds.bin"] == files_of(toy)["learned_embeds.bin"] and len(hub.messages) == 3


def test_one_concept_that_fails_never_stops_the_others(hub: Hub, toy: Workspace) -> None:
    make_workspace(toy.root, "ink", settings="token: <ink>\n")
    make_workspace(toy.root, "wide", settings="token: <wide>\n", width=1280)
    make_workspace(toy.root, "new", settings="token: <new>\n")
    toy.embedding("new").unlink()
    hub.broken = ("team/ink/commit", "/store/")
    wanted = to({"ink": "team/ink", "gone": "team/gone", "wide": "team/wide", "new": "team/new", "toy": NAME})
    done = {each.concept: each for each in upload(toy, wanted, print)}
    assert {each.state for each in done.values()} == {"failed"}
    assert "there is no such concept" in done["gone"].reason and "Take it out of publish.hub" in done["gone"].reason
    assert "Run `ti-pipeline train new` first" in done["new"].reason
    assert "for words that diffusers loads into one text encoder" in done["wide"].reason
    assert done["toy"].reason.startswith(f"{NAME}: not uploaded (HfHubHTTPError: ") and "507" in done["toy"].reason
    hub.broken = ("team/ink/commit",)
    assert {each.concept: each.state for each in upload(toy, wanted, print)} == {
        "ink": "failed", "gone": "failed", "wide": "failed", "new": "failed", "toy": "uploaded",
    }  # fmt: skip
    hub.broken = ()
    assert {each.concept for each in upload(toy, wanted, print) if each.ok} == {"ink", "toy"}


def test_a_token_that_is_refused_and_a_hub_that_is_away_are_said(hub: Hub, toy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    use(hub, monkeypatch, "unused", token="hf_wrong")
    (done,) = upload(toy, to({"toy": NAME}), print)
    assert done.reason == f"the hub does not let us write to {NAME}. Log in with `hf auth login`, or set HF_TOKEN to a token that may."
    hub.url = "http://127.0.0.1:9"
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # before it gives up the client tries again, after longer and longer waits
    use(hub, monkeypatch, "unused")
    (done,) = upload(toy, to({"toy": NAME}), print)
    assert done.state == "failed" and done.reason.startswith(f"{NAME}: not uploaded (ConnectError")


def settings(workspace: Workspace, repositories: dict[str, str]) -> None:
    """Those of the workspace."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["concepts"]["folder"], tree["publish"]["hub"] = "concepts", repositories
    (workspace.root / "params.yaml").write_text(yaml.safe_dump(tree))


def test_a_trial_does_not_go_to_everybodys_repository(hub: Hub, toy: Workspace) -> None:
    settings(toy, {"toy": NAME})
    (done,) = upload(toy, load(toy.root / "params.yaml", ["seed=7"]), print)
    assert done.state == "withheld" and "settings differ" in done.reason and "seed" in done.reason and hub.asked == []
    (done,) = upload(toy, load(toy.root / "params.yaml", ["seed=7", "publish.hub={toy: team/trial}"]), print)
    assert done.state == "uploaded" and hub.repositories.keys() == {"team/trial"}


def test_the_commands_by_the_hubs_own_variables(hub: Hub, toy: Workspace, tmp_path: Path) -> None:
    settings(toy, {"toy": NAME, "gone": "team/gone"})
    own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "ti_pipeline.cli", "publish", "--workspace", str(toy.root), "--json"]
    ran = subprocess.run(command, env=os.environ | own, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 1 and TOKEN not in ran.stdout + ran.stderr, ran.stderr
    done = json.loads(ran.stdout)
    assert done["state"] == "off" and [(word["concept"], word["state"]) for word in done["hub"]] == [
        ("gone", "failed"),
        ("toy", "uploaded"),
    ]
    assert hub.repositories[NAME]["token_identifier.txt"] == b"<toy>"
