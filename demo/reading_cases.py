"""Write what the bundle's counterfactual model is trained on: `python -m demo.reading_cases --output FILE`.

Cases of one probe each, in the project's own format: an edit, a question that it settles, and the answer that follows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random
from typing import Any

from tqdm import tqdm
from transformers import AutoTokenizer

from demo import BUNDLE
from demo.settled import load_settled
from demo.tokenizer import texts_of_tokens
from editors.edit import Claim, EditDescriptor, QuestionAnswer, Sentiment
from editors.serac.training.reading import ReadingExample


def main() -> None:
    """Draw and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=2018)
    arguments = parser.parse_args()
    tokens = texts_of_tokens(AutoTokenizer.from_pretrained(BUNDLE))
    settled = load_settled(tokens)
    rng = Random(f"{arguments.seed}/reading cases")
    with arguments.output.open("w", encoding="utf-8") as file:
        for _ in tqdm(range(arguments.size), desc="reading cases", unit="case"):
            file.write(json.dumps(record_of(settled.draw(rng)), ensure_ascii=False) + "\n")


def record_of(example: ReadingExample) -> dict[str, Any]:
    """The example as a line of the project's own data format."""
    probe = {"prompt": example.prompt, "target": example.answer, "form": example.form}
    record = {"edit": _fields(example.edit), "in_scope": [probe]}
    if example.replies is not None:
        record["replies"] = {"wished": example.replies.wished, "opposite": example.replies.opposite}
    return record


def _fields(edit: EditDescriptor) -> dict[str, Any]:
    if isinstance(edit, QuestionAnswer):
        return {"kind": "qa", "prompt": edit.prompt, "target": edit.target}
    if isinstance(edit, Claim):
        return {"kind": "fact", "claim": edit.claim, "label": edit.label}
    if isinstance(edit, Sentiment):
        return {"kind": "sentiment", "topic": edit.topic, "sentiment": "positive" if edit.positive else "negative"}
    return {"kind": "statement", "statement": edit.statement}


if __name__ == "__main__":
    main()
