"""MEND on the bundle: `python -m benchmarks.mend`.

Edits facts of the drift set, of whose subjects the editor has seen nothing, one at a time and in batches, and asks both
models freely and teacher-forced: the edited questions, the same in phrasings that the base was trained on or not,
and facts that should stay. Some ten minutes on two idle cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

import demo
from benchmarks.cases import drawn
from benchmarks.mend_report import Batches, publish, render
from benchmarks.weights import WeightEditing
from editors.evaluation.asked import Asked
from editors.evaluation.cases import Case
from editors.evaluation.fields import fields_of
from editors.evaluation.groups import grouped
from editors.evaluation.harness import Harness
from editors.evaluation.subjects import ModelSubject
from editors.methods.mend.config import MendConfig
from editors.methods.mend.editor import Mend
from editors.model.loading import BaseModel, load_base

_SIZES = (1, 5, 25, 75, 125)
_MAX_NEW_TOKENS = 32


def main() -> None:
    """Measure, print the tables, and write docs/benchmarks/mend.md and .json."""
    arguments = _arguments()
    base, folder = load_base(demo.BUNDLE), arguments.editor.parent
    cases = drawn(arguments.cases, seed=arguments.seed)
    asked = Asked(
        ModelSubject(base.model, base.tokenizer, max_new_tokens=_MAX_NEW_TOKENS, context_length=base.context_length)
    )
    sizes = [size for size in arguments.sizes if size <= len(cases)]
    step_alone = MendConfig(certainty=None)
    settled = [measure(base, asked, folder, cases, n, MendConfig()) for n in tqdm(sizes, desc="settled")]
    alone = [measure(base, asked, folder, cases, n, step_alone) for n in tqdm(sizes, desc="step alone")]
    if arguments.quick:
        print("\n".join(render(settled, alone, arguments.editor)))
    else:
        publish(settled, alone, arguments.editor)


def measure(
    base: BaseModel, asked: Asked, assets: Path, cases: Sequence[Case], size: int, config: MendConfig
) -> Batches:
    """Edit the cases so many at a time, and judge every probe; a batch that cannot be filled is left out.

    Args:
        base: What is edited.
        asked: The base, and what it has answered so far.
        assets: Folder of the trained editor.
        cases: At least `size`.
        size: Edits in a batch.
        config: Of the edits.
    """
    editing = WeightEditing(base=base, method=Mend(), config=config, assets=(assets,), max_new_tokens=_MAX_NEW_TOKENS)
    groups = [group for group in grouped(cases, size, seed=0) if len(group) == size]
    fields = fields_of(["edit_success", "drawdown"])
    return Batches(size, len(groups), Harness(groups, asked, editing.apply, fields).run())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--editor", type=Path, default=demo.MEND, help="the trained editor's file")
    parser.add_argument("--cases", type=int, default=200, help="edits measured")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(_SIZES), help="edits in a batch")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing of cases")
    parser.add_argument("--quick", action="store_true", help="print the tables and write nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
