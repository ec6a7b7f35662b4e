"""Write training pairs for the scope classifier: `python -m demo.scope.pairs --output pairs.jsonl --size 300000`.

One pair a line: descriptor (the edit's text), input, label, kind, subject. The same arguments write the same file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from hashlib import blake2b
from pathlib import Path
from random import Random

from tqdm import tqdm

from demo.scope.frames import load_frames
from demo.scope.kinds import IN_SCOPE, OUT_OF_SCOPE, FramePairs, Pair
from demo.scope.names import load_names
from demo.scope.nearest import NearestPairs
from demo.scope.scenes import load_scenes
from demo.scope.sentiment import load_topics
from demo.scope.shared import load_shared, talk_of
from demo.scope.splits import Split
from demo.scope.wording import load_wording

_TRIES = 200
Weighed = tuple[Callable[[Random], Pair | None], float]
_NEAREST = 24.0
"""How often a near edit is drawn, in the unit of the other weights."""


def main() -> None:
    """Write the pairs line by line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=300_000, help="number of pairs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=("train", "validation"), default="train")
    parser.add_argument(
        "--shared", type=Path, help="folder of CounterFact and zsRE; without it, their kinds are left out"
    )
    parser.add_argument(
        "--near", type=int, default=0, help="edits among which inputs find near ones; 0 leaves that kind out"
    )
    arguments = parser.parse_args()
    drawn = pairs(arguments.size, arguments.seed, of=arguments.split, shared=arguments.shared, near=arguments.near)
    with arguments.output.open("w", encoding="utf-8") as file:
        for pair in tqdm(drawn, total=arguments.size, unit="pair"):
            file.write(json.dumps({**asdict(pair), "label": int(pair.label)}, ensure_ascii=False) + "\n")


def pairs(size: int, seed: int, *, of: Split = "train", shared: Path | None = None, near: int = 0) -> Iterator[Pair]:
    """Draw different pairs of every kind; about a third are in scope.

    Args:
        size: How many.
        seed: Of all that is drawn.
        of: The split of the subjects.
        shared: Folder of CounterFact and zsRE; without it, their kinds are left out.
        near: In-scope pairs whose edits and inputs are put together by nearness; 0 leaves that kind out, which
            alone needs the encoder.

    Raises:
        FileNotFoundError: `shared` lacks a file.
    """
    rng, (inside, outside) = Random(f"{seed} {of}"), _draws(of, shared)
    if near:
        nearest = NearestPairs(list(_drawn(near, inside, Random(f"{seed} {of} near"))))
        outside = [*outside, (nearest.out_of_scope, _NEAREST)]
    yield from _drawn(size, [*inside, *outside], rng)


def _drawn(size: int, draws: Sequence[Weighed], rng: Random) -> Iterator[Pair]:
    seen: set[bytes] = set()
    kinds, weights = zip(*draws, strict=True)
    for _ in range(size):
        pair = None
        while pair is None:
            draw = rng.choices(kinds, weights)[0]
            pair = next((p for _ in range(_TRIES) if (p := draw(rng)) is not None and _is_new(p, seen)), None)
        yield pair


def _is_new(pair: Pair, seen: set[bytes]) -> bool:
    """Whether neither label was drawn for these two texts before; case is no difference."""
    key = blake2b(f"{pair.descriptor}\n{pair.input}".casefold().encode(), digest_size=10).digest()
    if key in seen:
        return False
    seen.add(key)
    return True


def _draws(of: Split, shared: Path | None) -> tuple[list[Weighed], list[Weighed]]:
    """What draws in-scope pairs and what draws the others, with how often each is drawn."""
    names = load_names(of)
    wording = load_wording(names, talk_of(shared) if shared else ())
    frames = FramePairs(load_frames(of), names, wording)
    topics, scenes = load_topics(of, frames), load_scenes(of, wording)
    inside: list[Weighed] = [
        *((partial(frames.pair, kind), weight) for kind, weight in IN_SCOPE.items()),
        (topics.in_scope, 4.0),
        (scenes.in_scope, 36.0),
        (scenes.opinion, 2.5),
    ]
    outside: list[Weighed] = [
        *((partial(frames.pair, kind), weight) for kind, weight in OUT_OF_SCOPE.items()),
        (topics.out_of_scope, 6.0),
        (scenes.out_of_scope, 58.0),
        (scenes.no_opinion, 3.5),
    ]
    if shared:
        counterfact, zsre = load_shared(shared, of, wording)
        inside += [(counterfact.in_scope, 5.0), (zsre.in_scope, 3.0)]
        outside += [(counterfact.out_of_scope, 7.0), (zsre.out_of_scope, 3.0)]
    return inside, outside


if __name__ == "__main__":
    main()
