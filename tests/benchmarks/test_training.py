from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import pytest

from benchmarks.collection import recoloured
from benchmarks.report import run
from benchmarks.training import others

PEER = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
for name in ("model", "images", "token", "initializer", "output", "steps", "batch"):
    parser.add_argument("--" + name, required=True)
args = parser.parse_args()
assert pathlib.Path(args.model, "unet").is_dir() and {file.suffix for file in pathlib.Path(args.images).iterdir()} == {".png"}, args
pathlib.Path(args.output).mkdir(parents=True)
pathlib.Path(args.output, "said.json").write_text(json.dumps(vars(args)))
print("some words first")
print(json.dumps({"samples_a_second": 2.0}))
"""
PLACES = "--model {model} --images {images} --token {token} --initializer {initializer} --steps {steps} --batch {batch} --output {output}"


def test_an_external_script_is_run_as_the_peer_of_each_concept(tmp_path: Path) -> None:
    workspace = recoloured(tmp_path / "a folder", 2)
    script = tmp_path / "a script.py"
    script.write_text(PEER)
    args = argparse.Namespace(steps=3, batch=2)
    row = others("peer", f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} {PLACES}", workspace, args, 2)
    assert (row["concepts"], row["mean steps"], row["samples a second"], row["samples a CPU second"]) == (2, 3, 2.0, None)
    assert 0 < row["CPU seconds"] and row["peak MB"] > 5 and row["concepts an hour"] == pytest.approx(2 * 3600 / row["seconds"])
    assert len(list(workspace.root.glob("others/*/said.json"))) == 2


def test_the_plain_trainer_runs_as_a_peer(tmp_path: Path) -> None:
    workspace = recoloured(tmp_path, 1)
    command = f"{shlex.quote(sys.executable)} -m benchmarks.plain_trainer {PLACES}"
    row = others("peer", command, workspace, argparse.Namespace(steps=3, batch=2), 1)
    assert row["samples a second"] > 0 and row["samples a CPU second"] > 0
    assert len(list(workspace.root.glob("others/*/learned_embeds.safetensors"))) == 1


def test_a_peer_that_fails_ends_the_benchmark_with_its_own_words() -> None:
    with pytest.raises(RuntimeError, match="ended with status 3:\nno such model"):
        run([sys.executable, "-c", "print('no such model'); raise SystemExit(3)"])
