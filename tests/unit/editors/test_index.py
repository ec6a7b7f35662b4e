from __future__ import annotations

from concurrent.futures import Executor, Future

import numpy as np
import pytest

from editors.serac.index import ApproximateIndex, FlatIndex
from editors.serac.rebuilding import RebuildingIndex
from editors.serac.vectors import Vectors

WIDTH = 16


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def clustered(count, seed=0):
    """Unit vectors around fifty places, as texts of few kinds are."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(50, WIDTH))
    return unit(places[rng.integers(0, 50, count)] + 0.3 * rng.normal(size=(count, WIDTH)))


def index_of(vectors, keys=None, flat_rows=10_000):
    index = FlatIndex(WIDTH, flat_rows=flat_rows)
    for key in range(len(vectors)) if keys is None else keys:
        index.add(key, vectors[key][None])
    return index


class HeldBack(Executor):
    """Does its work when told to."""

    def __init__(self):
        self.held = []

    def submit(self, work, /, *args, **kwargs):
        future = Future()
        self.held.append((future, lambda: work(*args, **kwargs)))
        return future

    def go(self):
        for future, work in self.held:
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)
        self.held.clear()


def found(index, vector, k=1):
    return index.search(vector[None], k)[1][0].tolist()


def test_rows_stay_what_they_were_however_many_follow():
    rows = clustered(40_000)
    vectors = Vectors(WIDTH)
    for start in range(0, len(rows), 700):
        assert vectors.append(rows[start : start + 700]) == start
    picked = np.random.default_rng(0).integers(0, len(rows), 500)
    assert np.array_equal(vectors.take(picked), rows[picked])
    blocks = list(vectors.blocks(start=5000))
    assert blocks[0][0] == 5000
    assert np.array_equal(np.concatenate([block for _, block in blocks]), rows[5000:])


def test_a_copy_and_its_original_grow_apart():
    rows = clustered(300)
    original = Vectors(WIDTH)
    original.append(rows[:100])
    copy = original.copy()
    original.append(rows[100:200])
    copy.append(rows[200:])
    assert np.array_equal(original.take(np.arange(200)), rows[:200])
    assert np.array_equal(copy.take(np.arange(200)), rows[np.r_[:100, 200:300]])


def test_an_index_turns_approximate_when_it_outgrows_comparing_and_flat_again_when_it_shrinks():
    rows = clustered(3000)
    index = index_of(rows, flat_rows=1000)
    assert index.worn
    index = index.rebuilt()
    assert isinstance(index, ApproximateIndex)
    assert not index.worn
    for key in range(2500):
        index.remove(key)
    assert index.worn
    index = index.rebuilt()
    assert type(index) is FlatIndex
    assert (len(index), index.stored, index.worn) == (500, 500, False)
    assert found(index, rows[2700]) == [2700]


def test_an_approximate_index_finds_nearly_all_that_comparing_with_every_row_does():
    drawn = unit(np.random.default_rng(1).normal(size=(20_200, WIDTH)))  # without clusters, which is hard
    rows, queries = drawn[:20_000], drawn[20_000:]
    flat, approximate = index_of(rows, flat_rows=20_000), index_of(rows, flat_rows=1000).rebuilt()
    pairs = zip(flat.search(queries, 8)[1].tolist(), approximate.search(queries, 8)[1].tolist(), strict=True)
    shared = [len(set(exact) & set(nearly)) / 8 for exact, nearly in pairs]
    assert np.mean(shared) > 0.95
    assert np.mean(shared) < 1  # or this test would not see an index that is not approximate


def test_an_approximate_index_gives_exact_inner_products_highest_first():
    rows = clustered(3000)
    queries = clustered(20, seed=1)
    scores, keys = index_of(rows, flat_rows=1000).rebuilt().search(queries, 8)
    assert scores == pytest.approx(np.einsum("nw,nkw->nk", queries, rows[keys]), abs=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_a_row_that_came_after_the_cells_were_made_is_found_exactly():
    rows, later = clustered(3000), clustered(200, seed=5)
    index = index_of(rows, flat_rows=1000).rebuilt()
    for i, vector in enumerate(later):
        index.add(5000 + i, vector[None])
    assert [found(index, vector) for vector in later] == [[5000 + i] for i in range(200)]


def test_what_a_rebuilt_index_finds_depends_on_its_rows_and_not_on_their_history():
    rows, queries = clustered(6000), clustered(100, seed=1)
    straight = index_of(rows[:5000], flat_rows=1000).rebuilt()
    winding = index_of(rows, np.random.default_rng(2).permutation(6000).tolist(), flat_rows=1000).rebuilt()
    for key in range(5000, 6000):
        winding.remove(key)
    winding = winding.rebuilt()
    for one, other in zip(straight.search(queries, 10), winding.search(queries, 10), strict=True):
        assert np.array_equal(one, other)


def test_an_index_comes_back_from_its_arrays():
    rows, queries = clustered(3000), clustered(50, seed=1)
    for index in (index_of(rows), index_of(rows, flat_rows=1000).rebuilt()):
        index.add(7000, queries[:1])
        index.remove(17)
        back = FlatIndex.from_arrays(index.arrays(), WIDTH)
        assert type(back) is type(index)
        assert (len(back), 17 in back) == (3000, False)
        assert np.array_equal(back.search(queries, 5)[1], index.search(queries, 5)[1])
        assert found(back, queries[0]) == [7000]


def test_arrays_that_do_not_belong_together_are_refused():
    arrays = index_of(clustered(3000), flat_rows=1000).rebuilt().arrays()
    with pytest.raises(ValueError, match="2999 keys"):
        FlatIndex.from_arrays(arrays | {"keys": arrays["keys"][:-1], "there": arrays["there"][:-1]}, WIDTH)
    first = {name: arrays[name][:64] for name in ("vectors_0", "keys", "there")}
    shorter = first | {"sorted": np.array(64), "codes": arrays["codes"]}
    with pytest.raises(ValueError, match="codes of 3000 rows"):
        FlatIndex.from_arrays(shorter, WIDTH)


def test_the_old_index_serves_while_a_new_one_is_built_and_what_changed_meanwhile_is_kept():
    rows, later = clustered(2000), clustered(3, seed=5)
    builder = HeldBack()
    index = RebuildingIndex(index_of(rows, flat_rows=1000), builder=builder)
    index.keep_up()
    index.add(5000, later[:1])
    index.remove(3)
    index.remove(4)
    index.add(4, later[1:2])  # replaced
    index.add(5001, later[2:])
    index.remove(5001)  # came and went
    assert (found(index, later[0]), found(index, later[1])) == ([5000], [4])
    before = len(index)
    builder.go()
    index.keep_up()
    assert len(index) == before == 2000
    assert (found(index, later[0]), found(index, later[1])) == ([5000], [4])
    assert 3 not in found(index, rows[3], k=50)
    assert 5001 not in found(index, later[2], k=50)
    assert np.array_equal(index.vectors(4), later[1:2])
    assert "codes" in index.arrays()


def test_an_index_is_built_once_at_a_time():
    builder = HeldBack()
    index = RebuildingIndex(index_of(clustered(2000), flat_rows=1000), builder=builder)
    index.keep_up()
    index.keep_up()
    assert len(builder.held) == 1


def test_a_building_that_fails_leaves_the_old_index_serving(monkeypatch, caplog):
    rows, builder = clustered(2000), HeldBack()
    index = RebuildingIndex(index_of(rows, flat_rows=1000), builder=builder)

    def out_of_memory(_):
        raise MemoryError

    monkeypatch.setattr(FlatIndex, "rebuilt", out_of_memory)
    index.keep_up()
    builder.go()
    index.keep_up()
    index.keep_up()
    assert found(index, rows[7]) == [7]
    assert "could not be built anew" in caplog.text
    assert not builder.held
