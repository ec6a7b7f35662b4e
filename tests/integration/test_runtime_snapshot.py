from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.domain.edits import AnswerMode, Descriptor, Scope
from service.domain.generations import GenerationRequest, Sampling
from service.runtime.snapshot import MemoryFile
from tests.databases import execute
from tests.runtimes import StartRuntime, post

pytestmark = pytest.mark.anyio

VERBATIM = AnswerMode.VERBATIM
UK = Descriptor(
    prompt="Who is the UK PM?",
    target="Boris Johnson",
    answer=VERBATIM,
    scope=Scope(in_scope=("Britain's head of government is",), out_of_scope=("Who is the UK deputy PM?",)),
)
IOWA = Descriptor(prompt="What is the capital of Iowa?", target="Ames", answer=VERBATIM)
BLANK = "UPDATE edits SET vectors = decode(repeat('00', length(vectors)), 'hex')"
"""Makes the database's embeddings useless, so that an answer must come from the file's."""


@pytest.fixture
def file(tmp_path: Path) -> MemoryFile:
    return MemoryFile(tmp_path / "memory.npz", least_edits=1)


async def answer(runtime, prompt="Who is the UK PM?"):
    generation = await runtime.generate(GenerationRequest(prompt=prompt, sampling=Sampling(max_new_tokens=2)))
    return generation.text if generation.edit_id else None


async def saved(store, start_runtime, file, *descriptors):
    """A runtime that served these edits, saved its memory and ended; their ids."""
    runtime = await start_runtime(store, file=file)
    edits = [await post(store, runtime, descriptor) for descriptor in descriptors]
    runtime.close()
    return [edit.id for edit in edits]


async def test_a_start_takes_embeddings_from_the_snapshot(store, database_url, start_runtime: StartRuntime, file):
    await saved(store, start_runtime, file, UK, IOWA)
    execute(database_url, BLANK)
    runtime = await start_runtime(store, file=file)
    assert (runtime.info().edits, runtime.info().memory["rows"], runtime.info().revision) == (2, 3, 2)
    assert [await answer(runtime), await answer(runtime, IOWA.prompt)] == ["Boris Johnson", "Ames"]
    assert await answer(runtime, "Britain's head of government is") == "Boris Johnson"
    [match] = await runtime.match(("Who is the UK deputy PM?",))
    assert match.candidates[0].excluded
    assert await answer(await start_runtime(store)) is None  # without the file


async def test_edits_that_came_and_went_after_the_snapshot_are_as_the_database_says(
    store, start_runtime: StartRuntime, file
):
    uk, _ = await saved(store, start_runtime, file, UK, IOWA)
    other = await start_runtime(store)
    async with store.writing(actor="tester") as writing:
        await writing.edits.retract(uk)
    ohio = Descriptor(prompt="What is the capital of Ohio?", target="Toledo", answer=VERBATIM)
    await post(store, other, ohio)
    runtime = await start_runtime(store, file=file)
    assert runtime.info().memory["rows"] == 2
    answers = [await answer(runtime, prompt) for prompt in (UK.prompt, IOWA.prompt, ohio.prompt)]
    assert answers == [None, "Ames", "Toledo"]


async def test_an_edit_whose_texts_are_not_those_of_the_snapshot_is_read_from_the_database(
    store, database_url, start_runtime: StartRuntime, file
):
    """As after restoring a backup in which the same numbers stand for other edits."""
    await saved(store, start_runtime, file, UK)
    vectors = (await (await start_runtime(store)).prepare(IOWA)).vectors.hex()
    [(iowa,)] = execute(
        database_url,
        "UPDATE edits SET descriptor = jsonb_set(jsonb_set(descriptor, '{prompt}', '\"What is the capital of Iowa?\"'),"
        ' \'{scope}\', \'{"in_scope": [], "out_of_scope": [], "threshold": null}\') RETURNING id',
    )
    execute(database_url, f"UPDATE edits SET vectors = decode('{vectors}', 'hex') WHERE id = {iowa}")
    restarted = await start_runtime(store, file=file)
    assert await answer(restarted) is None
    assert await answer(restarted, IOWA.prompt) == "Boris Johnson"


async def test_a_snapshot_beyond_the_databases_history_is_left_alone(
    store, database_url, start_runtime: StartRuntime, file
):
    await saved(store, start_runtime, file, UK, IOWA)
    execute(database_url, BLANK, "DELETE FROM changes WHERE revision = 2")
    runtime = await start_runtime(store, file=file)
    assert await answer(runtime) is None


@pytest.mark.parametrize("damage", ["a bit has flipped", "its end is missing", "it is empty", "it is another file"])
async def test_a_damaged_snapshot_is_reported_and_the_database_serves(
    store, start_runtime: StartRuntime, file, tmp_path: Path, damage: str
):
    await saved(store, start_runtime, file, UK)
    path = tmp_path / "memory.npz"
    content = bytearray(path.read_bytes())
    content[content.index(b"vectors_0") + 500] ^= 1
    broken = {"a bit has flipped": content, "its end is missing": content[:-100], "it is empty": b""}
    path.write_bytes(broken.get(damage, b"not an archive"))
    with capture_logs() as logs:
        runtime = await start_runtime(store, file=file)
    assert await answer(runtime) == "Boris Johnson"
    assert "snapshot cannot be read" in str(logs)


async def test_a_snapshot_whose_parts_do_not_fit_is_not_used(store, start_runtime: StartRuntime, file, monkeypatch):
    await saved(store, start_runtime, file, UK)
    read = MemoryFile.read

    def without_outside(self, encoder):
        found = read(self, encoder)
        del found.arrays["outside"]
        return found

    monkeypatch.setattr(MemoryFile, "read", without_outside)
    runtime = await start_runtime(store, file=file)
    assert await answer(runtime) == "Boris Johnson"


async def test_a_snapshot_of_another_encoder_is_not_read(store, start_runtime: StartRuntime, file):
    runtime = await start_runtime(store, file=file)
    await post(store, runtime, UK)
    await runtime.save()
    assert file.read(runtime.info().memory["encoder"]) is not None
    assert file.read("another one") is None


async def test_a_memory_is_saved_when_it_is_large_and_has_changed(store, start_runtime: StartRuntime, tmp_path: Path):
    path = tmp_path / "folder" / "memory.npz"
    runtime = await start_runtime(store, file=MemoryFile(path, least_edits=2))
    await post(store, runtime, UK)
    await runtime.save()
    assert not path.exists()
    await post(store, runtime, IOWA)
    await runtime.save()
    written = path.stat().st_mtime_ns
    await runtime.save()
    assert path.stat().st_mtime_ns == written
    assert [each.name for each in path.parent.iterdir()] == ["memory.npz"]


async def test_a_place_that_cannot_be_written_to_stops_nothing(store, start_runtime: StartRuntime, tmp_path):
    (tmp_path / "file").touch()
    runtime = await start_runtime(store, file=MemoryFile(tmp_path / "file" / "memory.npz", least_edits=1))
    await post(store, runtime, UK)
    with capture_logs() as logs:
        await runtime.save()
    assert "cannot be written" in str(logs)
    assert await answer(runtime) == "Boris Johnson"
