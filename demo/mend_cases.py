"""Write what the bundle's MEND editor is trained on: `python -m demo.mend_cases --output FILE`.

Edits that give known facts other values, with paraphrases and with facts that stay, in the project's own format. No
edit and no probe is of a subject of the drift set, so that those edits are new to the editor. As in the drift set, many
values are names that the model has never written, many facts are about people, and the hardest facts to leave alone are
those of the same relation that share the answer being replaced.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from tqdm import tqdm
from transformers import AutoTokenizer

from demo import BUNDLE
from demo.corpus import Corpus
from demo.facts import Fact, World, load_world
from demo.opinions import load_opinions
from demo.reading import load_inventor
from demo.suites import ANY_OTHER, SAME_RELATION, SAME_SUBJECT
from demo.tokenizer import texts_of_tokens
from editors.evaluation.cases import EDIT, PARAPHRASE
from editors.evaluation.datasets.forms import NEIGHBOUR

_PARAPHRASES = 3
_STRANGENESS = 0.5
"""Share of the values that are pieced together at random."""
_PEOPLE = 0.5
"""Share of the edits that are drawn from facts about people alone."""
_STAYING = (NEIGHBOUR, NEIGHBOUR, SAME_RELATION, SAME_RELATION, SAME_SUBJECT, ANY_OTHER)

Sharing = Mapping[tuple[str, str], Sequence[Fact]]
"""Facts by relation and object."""


def main() -> None:
    """Draw and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=2018)
    arguments = parser.parse_args()
    corpus = replace(
        Corpus(without_drift(load_world()), load_opinions(), load_inventor(held_out=False)),
        strangeness=_STRANGENESS,
        tokens=texts_of_tokens(AutoTokenizer.from_pretrained(BUNDLE)),
    )
    sharing = sharing_answers(corpus.world)
    people = [fact for fact in corpus.world.facts if fact.relation.object_type == "person"]
    rng = Random(f"{arguments.seed}/mend cases")
    with arguments.output.open("w", encoding="utf-8") as file:
        for number in tqdm(range(arguments.size), desc="mend cases", unit="case"):
            fact = rng.choice(people if rng.random() < _PEOPLE else corpus.world.facts)
            record = {"id": str(number), **record_of(corpus, sharing, fact, rng)}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def without_drift(world: World) -> World:
    """The world without the subjects of the drift set, whatever is said of them."""
    changed = {entry.fact.subject for entry in world.drift}
    return World(world.relations, tuple(fact for fact in world.facts if fact.subject not in changed), ())


def record_of(corpus: Corpus, sharing: Sharing, fact: Fact, rng: Random) -> dict[str, Any]:
    """A case, as a line of the project's own data format: another object for a fact."""
    obj = corpus.other_object(fact, rng)
    asked, *others = rng.sample(fact.prompts, 1 + _PARAPHRASES)
    staying = [(form, _left_alone(corpus, sharing, fact, form, rng)) for form in _STAYING]
    return {
        "edit": {"kind": "qa", "prompt": asked, "target": obj, "subject": fact.subject},
        "in_scope": [
            {"prompt": asked, "target": obj, "form": EDIT},
            *({"prompt": prompt, "target": obj, "form": PARAPHRASE} for prompt in others),
        ],
        "out_of_scope": [
            {"prompt": rng.choice(other.prompts), "target": other.object, "form": form}
            for form, other in staying
            if other is not None
        ],
        "previous": fact.object,
    }


def sharing_answers(world: World) -> Sharing:
    """The facts of a world by relation and object."""
    shared: dict[tuple[str, str], list[Fact]] = {}
    for fact in world.facts:
        shared.setdefault((fact.relation.name, fact.object), []).append(fact)
    return shared


def _left_alone(corpus: Corpus, sharing: Sharing, fact: Fact, form: str, rng: Random) -> Fact | None:
    """Another fact that an edit of this one should not change; None when there is none of that form."""
    if form != NEIGHBOUR:
        return corpus.neighbour_of(fact, form, rng)
    others = [other for other in sharing[fact.relation.name, fact.object] if other is not fact]
    return rng.choice(others) if others else None


if __name__ == "__main__":
    main()
