"""The door of checkpoints: versions are listed and shown, and exported whole or not at all."""

from __future__ import annotations

import io
import tarfile
import tempfile

import pytest

from service.domain.versions import Base
from tests.bakes import PROMPT, TARGET, version_in

pytestmark = pytest.mark.anyio


@pytest.fixture
def write(store, artifacts, add, lively_base, tmp_path):
    """Adds a version without baking it: its delta changes nothing, unless it has other content."""
    edits = []

    async def write(*, base=lively_base, content=None):
        if not edits:
            edits.append(await add(PROMPT, TARGET))
        return await version_in(store, artifacts, tmp_path / "delta", edit=edits[0], base=base, content=content)

    return write


def damage(tmp_path, version, content):
    file = tmp_path / "artifacts" / f"{version.artifact.digest}.safetensors"
    file.unlink() if content is None else file.write_bytes(content)


async def test_the_base_is_always_there(client, lively_base):
    (base,) = (await client.get("/checkpoints")).json()["data"]
    assert base == {
        "id": "v0",
        "base": {"name": "lively-llama", "fingerprint": lively_base.fingerprint},
        **dict.fromkeys(("parent", "method", "actor", "created_at", "bake", "artifact", "report")),
        "edits": [],
        "config": {},
        "revision": 0,
        "serves": 100,
    }
    assert (await client.get("/checkpoints/v0")).json() == base | {"outdated": [], "damage": None}


async def test_versions_are_listed_newest_first_and_the_base_last(client, write):
    for _ in range(2):
        await write()
    pages, after = [], ""
    while True:
        page = (await client.get(f"/checkpoints?limit=1{after}")).json()
        pages.append([version["id"] for version in page["data"]])
        if not page["has_more"]:
            break
        after = f"&after={page['next']}"
    assert pages == [["v2"], ["v1"], ["v0"]]
    whole = (await client.get("/checkpoints")).json()
    assert [version["id"] for version in whole["data"]] == ["v2", "v1", "v0"]
    assert (whole["has_more"], whole["next"]) == (False, None)
    assert (await client.get("/checkpoints?after=v0")).json()["data"] == []


async def test_a_version_says_what_it_is_made_of(client, write):
    version = await write()
    shown = (await client.get("/checkpoints/v1")).json()
    assert (shown["id"], shown["parent"], shown["method"], shown["actor"]) == ("v1", "v0", "rome", "ann")
    assert shown["edits"] == [{"id": "e1", "revision": 1}]
    assert shown["artifact"] == {"digest": version.artifact.digest, "size": version.artifact.size}
    assert shown["damage"] is None
    listed = (await client.get("/checkpoints")).json()["data"][0]
    assert "failures" in shown["report"]
    assert listed["report"] == {name: value for name, value in shown["report"].items() if name != "failures"}


@pytest.mark.parametrize("name", ["v99", "v", "e1", "nothing", "v01", "v%00"])
async def test_an_unknown_version_is_not_found(client, write, name):
    await write()
    for path in (f"/checkpoints/{name}", f"/checkpoints/{name}/export"):
        response = await client.get(path)
        assert (response.status_code, response.json()["type"]) == (404, "/problems/version-not-found")


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("peft", {"README.md", "adapter_config.json", "adapter_model.safetensors"}),
        ("hf", {"README.md", "config.json", "model.safetensors", "tokenizer.json"}),
    ],
)
async def test_an_export_is_a_tar_archive_of_its_files(client, write, kind, files, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    await write()
    response = await client.get(f"/checkpoints/v1/export?format={kind}")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/x-tar")
    assert response.headers["Content-Disposition"] == f'attachment; filename="v1-{kind}.tar"'
    assert int(response.headers["Content-Length"]) == len(response.content)
    with tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
        names = {name.removeprefix(f"v1-{kind}/") for name in archive.getnames()}
        assert files <= names
        for member in archive.getmembers():
            assert len(archive.extractfile(member).read()) == member.size
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_a_version_is_exported_for_peft_unless_asked_otherwise(client, write):
    await write()
    assert (await client.get("/checkpoints/v1/export")).headers["Content-Disposition"].endswith('"v1-peft.tar"')
    refused = await client.get("/checkpoints/v1/export?format=onnx")
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/invalid-request")


async def test_the_base_is_not_exported(client):
    response = await client.get("/checkpoints/v0/export")
    assert (response.status_code, response.json()["type"]) == (422, "/problems/nothing-to-export")


async def test_a_version_of_another_base_is_shown_and_not_exported(client, write):
    await write(base=Base(name="gpt-9", fingerprint="0123456789abcdef"), content=b"weights")
    assert (await client.get("/checkpoints/v1")).json()["base"]["name"] == "gpt-9"
    response = await client.get("/checkpoints/v1/export")
    assert (response.status_code, response.json()["type"]) == (409, "/problems/base-mismatch")
    assert response.json()["detail"].startswith("v1 was made for gpt-9 (0123456789ab), and lively-llama (")


@pytest.mark.parametrize(("content", "words"), [(None, "is missing"), (b"other", "is corrupted")])
async def test_a_damaged_version_is_named_and_not_exported(client, write, tmp_path, content, words):
    version = await write()
    damage(tmp_path, version, content)
    assert words in (await client.get("/checkpoints/v1")).json()["damage"]
    response = await client.get("/checkpoints/v1/export")
    problem = response.json()
    assert (response.status_code, problem["type"]) == (500, "/problems/artifact-damaged")
    assert f"of v1 {words}" in problem["detail"]
    assert problem["artifact"] == version.artifact.digest


async def test_content_that_is_no_delta_is_not_exported(client, write):
    await write(content=b"not a delta, though kept as it was")
    response = await client.get("/checkpoints/v1/export")
    assert (response.status_code, response.json()["type"]) == (500, "/problems/artifact-damaged")


@pytest.mark.parametrize("path", ["/checkpoints", "/checkpoints/v1", "/checkpoints/v1/export"])
async def test_without_the_database_nothing_is_said_but_that(lost, path):
    response = await lost.get(path)
    assert (response.status_code, response.json()["type"]) == (503, "/problems/store-unavailable")
