from __future__ import annotations

import numpy as np
import pytest

from editors.edit import QuestionAnswer
from editors.errors import EncoderMismatch
from editors.serac.memory import EditMemory, MemoryEntry

EAST, NORTH, UP = np.eye(3, dtype=np.float32)


def entry(*in_scope, out_of_scope=(), name="edit"):
    """An edit whose texts are embedded as the given vectors."""
    return MemoryEntry(
        descriptor=QuestionAnswer(prompt=f"{name} in 0", target="answer"),
        in_scope=tuple(f"{name} in {i}" for i in range(len(in_scope))),
        out_of_scope=tuple(f"{name} out {i}" for i in range(len(out_of_scope))),
        vectors=np.array([*in_scope, *out_of_scope], dtype=np.float32),
    )


def between(a, b):
    return (a + b) / np.linalg.norm(a + b)


def memory_of(**entries):
    memory = EditMemory(3)
    for name, each in entries.items():
        memory.put(int(name[1:]), each)
    return memory


def same(one, other):
    said = [(each.descriptor, each.in_scope, each.out_of_scope, each.threshold) for each in (one, other)]
    return said[0] == said[1] and np.array_equal(one.vectors, other.vectors)


def ids(results):
    return [[found.edit_id for found in row] for row in results]


def test_an_empty_memory_finds_nothing_for_each_query():
    assert EditMemory(3).search(np.stack([EAST, UP]), 4) == [[], []]


def test_no_queries_give_no_answers():
    assert memory_of(e1=entry(EAST)).search(np.empty((0, 3), dtype=np.float32), 4) == []


def test_the_nearest_edit_comes_first_with_its_similarity():
    memory = memory_of(e1=entry(EAST), e2=entry(NORTH))
    (first, second), _ = memory.search(np.stack([between(EAST, between(EAST, NORTH)), UP]), 2)
    assert (first.edit_id, second.edit_id) == (1, 2)
    assert first.similarity == pytest.approx(np.cos(np.pi / 8), abs=1e-6)
    assert second.similarity == pytest.approx(np.sin(np.pi / 8), abs=1e-6)


def test_an_edit_is_found_by_its_nearest_in_scope_text():
    memory = memory_of(e1=entry(EAST, NORTH, UP, name="fact"))
    [[found]] = memory.search(NORTH[None], 5)
    assert (found.matched_text, found.similarity) == ("fact in 1", 1.0)


def test_one_edit_with_many_texts_does_not_crowd_out_the_others():
    crowd = [between(EAST, EAST + 0.01 * i * NORTH) for i in range(100)]
    memory = memory_of(e1=entry(*crowd), e2=entry(NORTH), e3=entry(UP))
    assert ids(memory.search(EAST[None], 3)) == [[1, 2, 3]]


def test_skipped_edits_take_no_place():
    memory = EditMemory(3)
    for edit_id in range(50):
        memory.put(edit_id, entry(EAST))
    memory.put(99, entry(UP))
    assert ids(memory.search(EAST[None], 2, skip=lambda edit_id: edit_id < 49)) == [[49, 99]]
    assert ids(memory.search(EAST[None], 2, skip=lambda _: True)) == [[]]


@pytest.mark.parametrize(
    ("out_of_scope", "excluded"), [(UP, False), (between(EAST, UP), False), (EAST, True), (between(EAST, NORTH), True)]
)
def test_an_edit_is_excluded_when_an_out_of_scope_text_is_at_least_as_near(out_of_scope, excluded):
    memory = memory_of(e1=entry(EAST, out_of_scope=[out_of_scope]))
    [[found]] = memory.search(between(EAST, NORTH)[None], 1)
    assert found.excluded is excluded


def test_an_out_of_scope_text_alone_does_not_make_an_edit_near():
    memory = memory_of(e1=entry(EAST, out_of_scope=[UP]), e2=entry(between(NORTH, UP)))
    nearest, far = memory.search(UP[None], 2)[0]
    assert (nearest.edit_id, far.edit_id, far.similarity) == (2, 1, 0.0)


def test_putting_an_edit_again_replaces_it():
    memory = memory_of(e1=entry(EAST, NORTH))
    memory.put(1, replacement := entry(UP))
    assert (len(memory), memory.rows) == (1, 1)
    assert same(memory.get(1), replacement)
    assert memory.search(EAST[None], 3)[0][0].similarity == 0.0


def test_a_removed_edit_is_gone_and_removing_it_again_does_nothing():
    memory = memory_of(e1=entry(EAST, NORTH), e2=entry(UP))
    for _ in range(2):
        memory.remove(1)
        assert (len(memory), memory.rows, 1 in memory, 2 in memory, memory.get(1)) == (1, 1, False, True, None)
        assert ids(memory.search(EAST[None], 3)) == [[2]]


def test_embeddings_of_another_encoder_are_refused_and_leave_the_memory_as_it_was():
    memory = memory_of(e1=(kept := entry(EAST)))
    other = MemoryEntry(
        descriptor=kept.descriptor, in_scope=("text",), out_of_scope=(), vectors=np.ones((1, 4), dtype=np.float32)
    )
    with pytest.raises(EncoderMismatch, match="width 4"):
        memory.put(1, other)
    assert same(memory.get(1), kept)
    with pytest.raises(EncoderMismatch, match="3 wide"):
        memory.search(np.ones((1, 4), dtype=np.float32), 1)


def test_an_entry_needs_one_vector_for_each_text():
    with pytest.raises(EncoderMismatch, match="2 texts"):
        MemoryEntry(
            descriptor=QuestionAnswer(prompt="a", target="b"),
            in_scope=("a",),
            out_of_scope=("c",),
            vectors=np.ones((1, 3), dtype=np.float32),
        )


def test_an_entry_needs_its_own_text():
    with pytest.raises(ValueError, match="in-scope"):
        entry(out_of_scope=[EAST])


def test_at_least_one_edit_must_be_asked_for():
    with pytest.raises(ValueError, match="k is 0"):
        memory_of(e1=entry(EAST)).search(EAST[None], 0)


def test_a_copy_and_its_original_change_apart():
    memory = memory_of(e1=entry(EAST, out_of_scope=[UP]), e2=entry(NORTH))
    copy = memory.copy()
    memory.remove(1)
    copy.put(3, entry(UP))
    assert ids(memory.search(EAST[None], 5)) == [[2]]
    assert ids(copy.search(EAST[None], 5)) == [[1, 2, 3]]
    assert copy.search(UP[None], 3)[0][1].excluded


@pytest.mark.parametrize("flat_rows", [1000, 4])
def test_a_memory_comes_back_from_its_arrays_with_the_edits_that_are_wanted(flat_rows):
    memory = EditMemory(3, flat_rows=flat_rows)
    for edit_id in (9, 2, 5, 7, 1):
        memory.put(edit_id, entry(between(EAST, NORTH), between(UP, edit_id * EAST), out_of_scope=[edit_id * EAST, UP]))
    memory.put(3, entry(UP))
    memory.search(EAST[None], 1)
    texts = {edit_id: each for edit_id, each in memory.texts.items() if edit_id != 5}
    back = EditMemory.restored(memory.arrays(), texts, 3)
    memory.remove(5)
    queries = np.stack([EAST, NORTH, UP])
    assert back.search(queries, 9) == memory.search(queries, 9)
    assert all(same(back.get(edit_id), memory.get(edit_id)) for edit_id in texts)


def test_arrays_that_lack_an_edits_texts_are_refused():
    memory = memory_of(e1=entry(EAST), e2=entry(NORTH))
    longer = memory_of(e1=entry(EAST, UP), e2=entry(NORTH))
    with pytest.raises(ValueError, match="other texts"):
        EditMemory.restored(memory.arrays(), longer.texts, 3)
