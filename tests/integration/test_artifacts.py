"""Artifacts come out as they were put, or not at all; wherever they are kept."""

from __future__ import annotations

import asyncio
import errno
import os
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from service.domain.artifacts import Artifact
from service.errors import ArtifactDamaged, ArtifactsUnavailable, StartupError, StorageFull
from service.store.artifacts import ArtifactStore

pytestmark = pytest.mark.anyio

CONTENT = os.urandom(3_000_000)  # more than one chunk


class FaultyFileSystem(MemoryFileSystem):
    """A place in memory where the next writes, or all calls, go wrong."""

    protocol = "faulty"
    store = {}  # noqa: RUF012 - of the class, as its parent's
    pseudo_dirs = [""]  # noqa: RUF012
    error = None

    def _open(self, path, mode="rb", **options):
        file = super()._open(path, mode=mode, **options)
        if self.error is not None and mode == "wb":
            file.write(b"half")

            def write(_):
                raise self.error

            file.write = write
        return file


fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)


@pytest.fixture(params=["folder", "memory"])
def place(request, tmp_path):
    """A URL and what lies there, as names below it."""
    if request.param == "folder":
        return str(tmp_path / "kept" / "here")
    return f"memory://{uuid4().hex}/here"


@pytest.fixture
def kept(place):
    return ArtifactStore(place)


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    return file


def written(file, content):
    file.write_bytes(content)
    return file


def names(place):
    files, root = fsspec.core.url_to_fs(place)
    return sorted(path.removeprefix(root).strip("/") for path in files.find(root))


def overwrite(place, artifact, content):
    files, root = fsspec.core.url_to_fs(place)
    files.pipe_file(f"{root}/{artifact.digest}.safetensors", content)


async def put(kept, file):
    artifact = await kept.describe(file)
    await kept.put(file, artifact)
    return artifact


async def test_a_file_is_kept_under_the_hash_of_its_content_and_comes_back_as_it_was(kept, place, file):
    artifact = await put(kept, file)
    assert artifact == Artifact(digest=sha256(CONTENT).hexdigest(), size=len(CONTENT))
    assert names(place) == [f"{artifact.digest}.safetensors"]
    await kept.verify(artifact, owner="v1")
    async with ArtifactStore(place).fetch(artifact, owner="v1") as copy:
        assert copy.read_bytes() == CONTENT
    assert not copy.exists()


async def test_describing_keeps_nothing(kept, place, file):
    await kept.describe(file)
    assert names(place) == []


async def test_the_same_content_is_kept_once(kept, place, file, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(CONTENT)
    assert await put(kept, file) == await put(kept, other)
    assert len(names(place)) == 1


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"\0", CONTENT[:-1] + b"\1"])
async def test_a_corrupted_artifact_is_named_and_never_handed_out(kept, place, file, content):
    artifact = await put(kept, file)
    overwrite(place, artifact, content)
    with pytest.raises(ArtifactDamaged, match=f"{artifact.digest[:12]} of v3 is corrupted"):
        await kept.verify(artifact, owner="v3")
    with pytest.raises(ArtifactDamaged) as damaged:
        async with kept.fetch(artifact, owner="v3"):
            pytest.fail("it was handed out")
    assert damaged.value.extra == {"artifact": artifact.digest}
    await kept.put(file, artifact)  # putting it again mends it
    await kept.verify(artifact, owner="v3")


async def test_a_missing_artifact_is_named(kept, file):
    artifact = await kept.describe(file)
    with pytest.raises(ArtifactDamaged, match="of v3 is missing"):
        await kept.verify(artifact, owner="v3")
    with pytest.raises(ArtifactDamaged, match="of v3 is missing"):
        async with kept.fetch(artifact, owner="v3"):
            pytest.fail("it was handed out")


async def test_collecting_keeps_what_is_named_or_claimed_and_what_is_not_ours(kept, place, tmp_path):
    named, claimed, orphan = [await put(kept, written(tmp_path / "file", content)) for content in (b"a", b"b", b"c")]
    files, root = fsspec.core.url_to_fs(place)
    half = {one: f"incoming/{one.digest}-{uuid4().hex}.safetensors" for one in (named, claimed, orphan)}
    others = ["notes.txt", "model.safetensors", f"elsewhere/{'0' * 64}.safetensors"]
    for name in (*half.values(), *others):
        files.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        files.pipe_file(f"{root}/{name}", b"x")
    removed = await kept.collect({named.digest}, {claimed.digest})
    assert removed == tuple(sorted([f"{orphan.digest}.safetensors", half[named], half[orphan]]))
    left = [f"{named.digest}.safetensors", f"{claimed.digest}.safetensors", half[claimed], *others]
    assert names(place) == sorted(left)
    assert await kept.collect({named.digest}, {claimed.digest}) == ()


async def test_readers_of_an_artifact_that_is_being_put_see_all_of_it_or_none(file, tmp_path):
    kept = ArtifactStore(str(tmp_path / "kept"))
    artifact = await kept.describe(file)

    async def read():
        try:
            async with kept.fetch(artifact, owner="v1") as copy:
                return copy.read_bytes() == CONTENT
        except ArtifactDamaged as error:
            return error.detail.endswith("missing.")

    outcomes = await asyncio.gather(kept.put(file, artifact), *(read() for _ in range(20)))
    assert outcomes[1:] == [True] * 20


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_is_one_clear_error_and_leaves_nothing_behind(file, number):
    place = f"faulty://{uuid4().hex}"
    kept = ArtifactStore(place)
    artifact = await kept.describe(file)
    FaultyFileSystem.error = OSError(number, os.strerror(number))
    try:
        with pytest.raises(StorageFull, match=os.strerror(number)):
            await kept.put(file, artifact)
    finally:
        FaultyFileSystem.error = None
    assert names(place) == []
    await kept.put(file, artifact)
    await kept.verify(artifact, owner="v1")


async def test_a_place_that_does_not_answer_may_be_asked_again(file):
    kept = ArtifactStore(f"faulty://{uuid4().hex}")
    artifact = await kept.describe(file)
    FaultyFileSystem.error = ConnectionError("connection reset")
    try:
        with pytest.raises(ArtifactsUnavailable, match="connection reset"):
            await kept.put(file, artifact)
    finally:
        FaultyFileSystem.error = None


@pytest.mark.parametrize(
    ("url", "words"),
    [("nonsense://here", "nonsense"), ("/dev/null/here", "Not a directory"), ("s3://key:s3cret@here", "s3")],
)
def test_a_place_that_cannot_be_used_is_said_at_the_start_without_its_secrets(url, words):
    with pytest.raises(StartupError, match=words) as refused:
        ArtifactStore(url)
    assert "ERRATA_ARTIFACTS_URL" in refused.value.hint
    assert "s3cret" not in refused.value.detail


def test_a_folder_is_made_with_its_parents(tmp_path: Path):
    ArtifactStore(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()
