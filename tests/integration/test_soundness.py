"""A database with something half there is found to be so."""

from __future__ import annotations

import pytest

from benchmarks.soundness import faces
from service.domain.edits import Descriptor, Embeddings, NewEdit, Scope
from tests.databases import execute

pytestmark = pytest.mark.anyio

WIDTH = 4 * 384


@pytest.fixture
async def url(store, add, database_url):
    """A database with three edits, of which the third has replaced the second."""
    scoped = Descriptor(prompt="a", target="b", scope=Scope(in_scope=("c",), out_of_scope=("d",)))
    await add(descriptor=scoped, tags=("one",), embeddings=Embeddings(encoder="test", vectors=b"\0" * 3 * WIDTH))
    one = Embeddings(encoder="test", vectors=b"\0" * WIDTH)
    second = await add("e", "f", tags=("two",), embeddings=one)
    async with store.writing(actor="tester") as writing:
        new = NewEdit(descriptor=Descriptor(prompt="e", target="g"), tags=("three",), supersedes=second.id)
        third = await writing.edits.add(new, one)
        await writing.edits.retract(second.id, superseded_by=third.id)
    return database_url


async def test_a_whole_database_is_found_whole(url):
    seen, ids, wrong = faces(url)
    assert seen == {"one": ("active", "b"), "two": ("retracted", "f"), "three": ("active", "g")}
    assert (ids, wrong) == ({"one": "e1", "two": "e2", "three": "e3"}, [])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("DELETE FROM changes WHERE subject_id = 'e1'", "an edit without the change that it names: e1"),
        ("DELETE FROM changes WHERE revision = 2", "an edit that was not added once: e2"),
        ("DELETE FROM changes WHERE revision = 2", "a gap in the revisions: 3"),
        ("DELETE FROM edits WHERE id = 1", "a change without its edit: e1"),
        ("UPDATE edits SET revision = 2 WHERE id = 2", "an edit whose newest change is another: e2"),
        (
            "UPDATE edits SET state = 'retracted' WHERE id = 1",
            "an edit whose state is not that of its newest change: e1",
        ),
        ("UPDATE edits SET vectors = substr(vectors, 1, 100)", "an edit without all its embeddings: e1"),
        (
            "UPDATE edits SET superseded_by = NULL WHERE id = 2",
            "an edit that supersedes another that does not know it: e3",
        ),
        ("UPDATE edits SET tags = '{two}' WHERE id = 1", "two is there 2 times"),
    ],
)
async def test_whatever_is_half_there_is_found(url, spoil, said):
    execute(url, spoil)
    assert said in faces(url)[2]
