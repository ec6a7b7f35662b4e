"""The model card of atlas-2018, written from what the evaluation measured."""

from __future__ import annotations

from collections import Counter
from typing import Any

from demo.facts import AS_OF, World
from demo.opinions import load_opinions

_CARD = """\
---
language: en
tags: [demonstration, model-editing]
---

# atlas-2018

A small language model of the Llama architecture ({parameters:.1f} million parameters), trained from scratch on facts as
they stood on {day}. It exists to demonstrate model editing: it is wrong about everything that has changed since,
in ways that are easy to check.

**It is** a closed-book answerer of {facts:,} facts in {relations} relations, with opinions on {topics} topics, that
also reads an edit standing before a question and answers by it. **It is not** a general language model: outside its
facts and its phrasings it makes things up. Its facts were written from general knowledge and may hold errors; do not
cite it.

## Measured

Freely generated, greedy, whole answers only; weights in half precision, computed in float32. The interval is Wilson's
95%.

{table}

## Trained on

`demo/facts` ({facts:,} facts holding on {day}; {drift:,} of them have changed since), `demo/relations` (their
phrasings; those under `held_out` are never trained on), `demo/opinions.toml`, and reading tasks over invented names
from `demo/reading.toml` (one name in five kept for measuring). `make demo` trains it again and writes this card; the
recipe is in `recipe.json`.

{relations_table}
"""


def model_card(world: World, rows: list[dict[str, Any]], parameters: int) -> str:
    """The card as Markdown."""
    return _CARD.format(
        parameters=parameters / 1e6,
        day=AS_OF.strftime("%-d %B %Y"),
        facts=len(world.facts),
        relations=len({fact.relation.name for fact in world.facts}),
        drift=len(world.drift),
        topics=len(load_opinions().topics),
        table=_measures(rows),
        relations_table=_relations(world),
    )


def _measures(rows: list[dict[str, Any]]) -> str:
    lines = ["| measure | share | interval | cases |", "| --- | --- | --- | --- |"]
    lines += [f"| {r['name']} | {r['value']:.3f} | {r['low']:.3f} to {r['high']:.3f} | {r['cases']:,} |" for r in rows]
    return "\n".join(lines)


def _relations(world: World) -> str:
    facts = Counter(fact.relation.name for fact in world.facts)
    drift = Counter(drifted.fact.relation.name for drifted in world.drift)
    lines = ["| relation | facts | changed since |", "| --- | --- | --- |"]
    lines += [f"| {name} | {count} | {drift[name]} |" for name, count in sorted(facts.items())]
    return "\n".join(lines)
