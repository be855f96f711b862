from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from PIL import Image

from ti_pipeline.concepts.concept import load_concept
from ti_pipeline.concepts.manifest import SCHEMA, read_manifest, write_manifest
from ti_pipeline.concepts.pictures import open_picture
from ti_pipeline.concepts.validation import validate_concept
from ti_pipeline.errors import ConceptError
from ti_pipeline.workspace import Workspace

YAML = """
initializer: "null"
captions: {00.jpg: a {token} “quoted”}
briefs: ["a {token} in rain"]
owner: Jörg
"""


@pytest.fixture
def workspace(duck, tmp_path) -> Workspace:
    text = YAML.replace("a {token} “quoted”", "'a {token} “quoted”'")
    (duck / "concept.yaml").write_text(text, encoding="utf-8")
    (duck / "broken.jpg").write_bytes(b"")
    return Workspace.at(tmp_path, "concepts")


def write(workspace, folder, params, fingerprint="f" * 64):
    concept = load_concept(folder)
    validation = validate_concept(concept, params.validate_, None)
    return write_manifest(workspace, concept, validation, params.validate_.background, fingerprint)


def test_what_is_written_is_read_back(workspace, duck, params):
    write(workspace, duck, params)
    manifest = read_manifest(workspace, "duck-toy")
    assert (manifest.slug, manifest.token, manifest.kind, manifest.initializer) == ("duck-toy", "<duck-toy>", "object", "null")
    assert manifest.captions == {"00.jpg": "a {token} “quoted”"} and manifest.briefs == ("a {token} in rain",)
    assert (manifest.owner, manifest.license, manifest.background) == ("Jörg", None, (255, 255, 255))
    assert manifest.fingerprint == "f" * 64
    assert [picture.file for picture in manifest.pictures] == ["00.jpg", "01.jpg", "02.jpg", "03.jpg"]
    first = manifest.pictures[0]
    assert first.path == duck / "00.jpg" and first.caption == "a {token} “quoted”" and manifest.pictures[1].caption is None
    assert manifest.open(first).tobytes() == open_picture(duck / "00.jpg", (255, 255, 255)).tobytes()


def test_the_table_has_the_declared_columns_and_no_path_of_this_machine(workspace, duck, params, tmp_path):
    path = write(workspace, duck, params)
    assert pq.read_schema(path).remove_metadata() == SCHEMA
    rows = pq.read_table(path).to_pylist()
    assert [row["file"] for row in rows] == ["00.jpg", "01.jpg", "02.jpg", "03.jpg", "broken.jpg"]
    assert rows[4]["decision"] == "refused" and rows[4]["reasons"] == ["empty: the file has no bytes"]
    assert str(tmp_path).encode() not in path.read_bytes() and str(tmp_path) not in workspace.report("duck-toy").read_text()


def test_the_report_is_for_people(workspace, duck, params):
    write(workspace, duck, params)
    report = json.loads(workspace.report("duck-toy").read_text(encoding="utf-8"))
    assert (report["concept"], report["accepted"], report["refused"], report["quarantine"]) == ("duck-toy", 4, 1, "")
    assert report["pictures"][4]["reasons"] == ["empty: the file has no bytes"]
    assert "Jörg" in workspace.report("duck-toy").read_text(encoding="utf-8")


def test_equal_sets_give_equal_bytes(workspace, duck, params):
    first = write(workspace, duck, params).read_bytes()
    assert write(workspace, duck, params).read_bytes() == first


def test_the_digests_move_with_what_they_cover(workspace, duck, params):
    def digests(yaml: str | None = None):
        if yaml is not None:
            (duck / "concept.yaml").write_text(yaml)
        write(workspace, duck, params)
        manifest = read_manifest(workspace, "duck-toy")
        return manifest.digest, manifest.training_digest

    plain = digests("")
    brief = digests("briefs: ['a {token}']")
    assert brief[0] != plain[0] and brief[1] == plain[1]
    initializer = digests("initializer: duck")
    assert initializer[0] != plain[0] and initializer[1] != plain[1]
    (duck / "broken.jpg").unlink()
    assert digests("") == plain  # a refused file was never part of it
    Image.new("RGB", (99, 99), (1, 2, 3)).save(duck / "00.jpg")
    assert digests("")[1] != plain[1]


def test_a_picture_that_has_changed_since_is_not_trained_on(workspace, duck, params):
    write(workspace, duck, params)
    manifest = read_manifest(workspace, "duck-toy")
    Image.new("RGB", (99, 99)).save(duck / "00.jpg")
    (duck / "01.jpg").unlink()
    with pytest.raises(ConceptError, match="has changed since"):
        manifest.open(manifest.pictures[0])
    with pytest.raises(ConceptError, match="cannot be opened any more"):
        manifest.open(manifest.pictures[1])


def test_quarantine_missing_and_damaged_manifests(workspace, folder, params):
    with pytest.raises(ConceptError, match="run|Run `ti-pipeline validate thing`"):
        read_manifest(workspace, "thing")
    path = write(workspace, folder(), params)
    with pytest.raises(ConceptError, match="in quarantine: no pictures in the folder"):
        read_manifest(workspace, "thing")
    for content in (b"", b"PAR1 nonsense PAR1", path.read_bytes()[:-9]):
        path.write_bytes(content)
        with pytest.raises(ConceptError, match="damaged"):
            read_manifest(workspace, "thing")
    pq.write_table(SCHEMA.empty_table(), path)  # a table of somebody else's
    with pytest.raises(ConceptError, match="damaged"):
        read_manifest(workspace, "thing")


def test_a_manifest_of_a_kind_that_there_is_not_is_damaged(workspace, duck, params):
    table = pq.read_table(write(workspace, duck, params))
    metadata = {**table.schema.metadata, b"kind": b"sound"}
    pq.write_table(table.replace_schema_metadata(metadata), workspace.manifest("duck-toy"))
    with pytest.raises(ConceptError, match="damaged .*sound"):
        read_manifest(workspace, "duck-toy")
