"""What the memory answers depends on the edits in it alone: not on their order, nor on edits that came and went.

The approximate index is held to the same laws where it visits every cell, as it does with rows as few as these.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from editors.edit import QuestionAnswer
from editors.serac.memory import EditMemory, MemoryEntry

WIDTH = 16
SEEDS = range(5)
FLAT_ROWS = (1000, 40)
"""Compared one by one; found by codes."""


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def entries(seed, count=60):
    """Edits of one to six texts; about half of the vectors are drawn from a small pool, so ties abound."""
    rng = np.random.default_rng(seed)
    pool = unit(rng.normal(size=(8, WIDTH)))
    made = {}
    for edit_id in rng.permutation(1000)[:count].tolist():
        n_in, n_out = int(rng.integers(1, 5)), int(rng.integers(0, 3))
        fresh = unit(rng.normal(size=(n_in + n_out, WIDTH)))
        pooled = pool[rng.integers(0, len(pool), n_in + n_out)]
        texts = tuple(f"{edit_id}-{i}" for i in range(n_in + n_out))
        made[edit_id] = MemoryEntry(
            descriptor=QuestionAnswer(prompt=texts[0], target="x"),
            in_scope=texts[:n_in],
            out_of_scope=texts[n_in:],
            vectors=np.where(rng.random((n_in + n_out, 1)) < 0.5, fresh, pooled),
        )
    return made, np.concatenate([pool, unit(rng.normal(size=(30, WIDTH)))])


def memory_of(made, order, flat_rows):
    memory = EditMemory(WIDTH, flat_rows=flat_rows)
    for edit_id in order:
        memory.put(edit_id, made[edit_id])
    return memory


@pytest.mark.parametrize("flat_rows", FLAT_ROWS)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("k", [1, 3, 8, 200])
def test_edits_put_in_any_order_answer_alike(flat_rows, seed, k):
    made, queries = entries(seed)
    expected = memory_of(made, sorted(made), flat_rows).search(queries, k)
    assert any(found for found in expected)
    for shuffle in range(4):
        order = random.Random(shuffle).sample(sorted(made), len(made))
        assert memory_of(made, order, flat_rows).search(queries, k) == expected


@pytest.mark.parametrize("flat_rows", FLAT_ROWS)
@pytest.mark.parametrize("seed", SEEDS)
def test_putting_and_removing_an_edit_restores_every_answer_exactly(flat_rows, seed):
    made, queries = entries(seed)
    first, *guests = sorted(made)
    guests, hosts = guests[:20], [first, *guests[20:]]
    memory = memory_of(made, hosts, flat_rows)
    before = memory.search(queries, 5)
    for edit_id in guests:
        memory.put(edit_id, made[edit_id])
    assert memory.search(queries, 5) != before
    for edit_id in random.Random(seed).sample(guests, len(guests)):
        memory.remove(edit_id)
    assert memory.search(queries, 5) == before


@pytest.mark.parametrize("flat_rows", FLAT_ROWS)
@pytest.mark.parametrize("seed", SEEDS)
def test_replacing_an_edit_and_putting_it_back_restores_every_answer_exactly(flat_rows, seed):
    made, queries = entries(seed)
    memory = memory_of(made, made, flat_rows)
    before = memory.search(queries, 5)
    one, other = list(made)[:2]
    memory.put(one, made[other])
    assert memory.search(queries, 5) != before
    memory.put(one, made[one])
    assert memory.search(queries, 5) == before


@pytest.mark.parametrize("flat_rows", FLAT_ROWS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_query_is_answered_alike_alone_and_in_company(flat_rows, seed):
    made, queries = entries(seed)
    memory = memory_of(made, made, flat_rows)
    together = memory.search(queries, 5)
    assert [memory.search(query[None], 5)[0] for query in queries] == together


@pytest.mark.parametrize("flat_rows", FLAT_ROWS)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("k", [1, 4, 200])
def test_a_search_finds_what_comparing_with_every_edit_would(flat_rows, seed, k):
    made, queries = entries(seed)

    def skipped(edit_id):
        return edit_id % 3 == 0

    memory = memory_of(made, made, flat_rows)
    for query, found in zip(queries, memory.search(queries, k, skip=skipped), strict=True):
        ranked = []
        for edit_id, entry in made.items():
            cosines = [float((vector.astype(np.float64) * query).sum()) for vector in entry.vectors]
            inside, outside = cosines[: len(entry.in_scope)], cosines[len(entry.in_scope) :]
            if not skipped(edit_id):
                ranked.append((-max(inside), edit_id, any(cosine >= max(inside) for cosine in outside)))
        assert [(-f.similarity, f.edit_id, f.excluded) for f in found] == sorted(ranked)[:k]
        assert all(f.matched_text in made[f.edit_id].in_scope for f in found)
