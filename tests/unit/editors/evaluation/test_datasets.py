"""Data sets: each format to cases, and each mistake to a sentence that says where it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from editors.edit import Claim, QuestionAnswer, Sentiment, Statement
from editors.errors import InvalidDataset
from editors.evaluation.cases import COMPOSED, EDIT, PARAPHRASE, Case, InScope, OutOfScope, Replies
from editors.evaluation.datasets import FORMATS, read_cases
from editors.evaluation.datasets.forms import LOCALITY, NEIGHBOUR

SHARED = Path(__file__).parents[4].parent / "shared" / "data"
needs_shared_data = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")

COUNTERFACT: dict[str, Any] = {
    "case_id": 7,
    "requested_rewrite": {
        "prompt": "The harbour of {} lies on the",
        "relation_id": "P206",
        "target_new": {"str": "Grey Sea", "id": "Q1"},
        "target_true": {"str": "Amber Gulf", "id": "Q2"},
        "subject": "Port Ellory",
    },
    "paraphrase_prompts": ["Ships from Port Ellory sail the", "Port Ellory looks out over the"],
    "neighborhood_prompts": ["The harbour of Quillmouth lies on the"],
    "generation_prompts": ["Port Ellory is known for"],
}
FLAT_COUNTERFACT = {
    "case_id": 7,
    "prompt": "The harbour of Port Ellory lies on the",
    "target_new": "Grey Sea",
    "subject": "Port Ellory",
    "ground_truth": "Amber Gulf",
    "rephrase_prompt": "Ships from Port Ellory sail the",
    "locality_prompt": "The harbour of Quillmouth lies on the",
    "locality_ground_truth": "Amber Gulf",
}
ZSRE: dict[str, Any] = {
    "subject": "Ora Fenn",
    "src": "Who taught Ora Fenn?",
    "pred": "Ben Locke",
    "rephrase": "By whom was Ora Fenn taught?",
    "alt": " Tia Marsh",
    "answers": ["Ben Locke"],
    "loc": "nq question: how deep is the lake at brindle",
    "loc_ans": "forty metres",
    "cond": "Ben Locke >> Tia Marsh || Who taught Ora Fenn?",
}
MEND_ZSRE: dict[str, Any] = {
    "id": "z1",
    "input": "Who taught Ora Fenn?",
    "prediction": "Ben Locke",
    "alternatives": ["Tia Marsh", "Lou Hart"],
    "rephrases": ["Ora Fenn taught whom?"],
    "filtered_rephrases": ["Who taught Ora Fenn?", "By whom was Ora Fenn taught?"],
    "output": [{"answer": "Ben Locke", "provenance": []}],
}
EASYEDIT: dict[str, Any] = {
    "subject": "Ora Fenn",
    "prompt": "Who taught Ora Fenn?",
    "target_new": "Tia Marsh",
    "ground_truth": ["Ben Locke", "B. Locke"],
    "rephrase_prompt": "By whom was Ora Fenn taught?",
    "locality": {
        "Relation_Specificity": [{"prompt": "Where was Ora Fenn born?", "ground_truth": [["Brindle", "Brindle Town"]]}],
        "Forgetfulness": [{"prompt": "Who else taught Ora Fenn?", "ground_truth": []}],
    },
    "portability": {"Reasoning": [{"prompt": "Where does Ora Fenn's teacher live?", "ground_truth": ["Quillmouth"]}]},
}
OWN: dict[str, Any] = {
    "id": "ora-fenn",
    "edit": {"kind": "qa", "prompt": "Who taught Ora Fenn?", "target": "Tia Marsh"},
    "in_scope": [
        {"prompt": "Who taught Ora Fenn?", "target": "Tia Marsh", "form": "edit"},
        {"prompt": "By whom was Ora Fenn taught?", "target": "Tia Marsh"},
    ],
    "out_of_scope": [{"prompt": "Who taught Ada Fenn?", "form": "near name"}, {"prompt": "Hello", "target": "Hi"}],
    "previous": "Ben Locke",
    "subject": "Ora Fenn",
}
RECORDS: dict[str, dict[str, Any]] = {
    "counterfact": COUNTERFACT,
    "zsre": ZSRE,
    "easyedit": EASYEDIT,
    "jsonl": OWN,
}
every_format = pytest.mark.parametrize("name", FORMATS)


def written(path: Path, *records: object) -> Path:
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def read_one(tmp_path: Path, name: str, record: object) -> Case:
    (case,) = read_cases(written(tmp_path / "one.json", record), name)
    return case


def refusal(path: Path, name: str) -> str:
    with pytest.raises(InvalidDataset) as caught:
        read_cases(path, name)
    assert caught.value.hint
    return caught.value.detail


def test_every_format_has_a_record_here_and_a_section_in_the_documentation():
    assert RECORDS.keys() == FORMATS.keys()
    page = (Path(__file__).parents[4] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert [name for name in FORMATS if f"### `{name}`" not in page] == []


def test_the_documented_records_can_be_read(tmp_path: Path):
    page = (Path(__file__).parents[4] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for name in FORMATS:
        section = page.split(f"### `{name}`")[1].split("\n#")[0]
        blocks = [block.split("```")[0] for block in section.split("```json\n")[1:]]
        assert blocks
        for block in blocks:
            assert read_one(tmp_path, name, json.loads(block)).in_scope


def test_a_record_of_counterfact_has_paraphrases_and_neighbours(tmp_path: Path):
    prompt = "The harbour of Port Ellory lies on the"
    assert read_one(tmp_path, "counterfact", COUNTERFACT) == Case(
        id="7",
        edit=QuestionAnswer(prompt, "Grey Sea", "Port Ellory"),
        in_scope=(
            InScope(prompt, "Grey Sea", EDIT),
            InScope("Ships from Port Ellory sail the", "Grey Sea", PARAPHRASE),
            InScope("Port Ellory looks out over the", "Grey Sea", PARAPHRASE),
        ),
        out_of_scope=(OutOfScope("The harbour of Quillmouth lies on the", NEIGHBOUR, "Amber Gulf"),),
        subject="Port Ellory",
        previous="Amber Gulf",
    )


def test_counterfact_as_easyedit_flattens_it_gives_the_same_case_with_fewer_probes(tmp_path: Path):
    nested = COUNTERFACT | {"paraphrase_prompts": COUNTERFACT["paraphrase_prompts"][:1]}
    assert read_one(tmp_path, "counterfact", FLAT_COUNTERFACT) == read_one(tmp_path, "counterfact", nested)


def test_a_record_of_zsre_drops_what_told_the_model_its_task(tmp_path: Path):
    assert read_one(tmp_path, "zsre", ZSRE) == Case(
        id="1",
        edit=QuestionAnswer("Who taught Ora Fenn?", "Tia Marsh", "Ora Fenn"),
        in_scope=(
            InScope("Who taught Ora Fenn?", "Tia Marsh", EDIT),
            InScope("By whom was Ora Fenn taught?", "Tia Marsh", PARAPHRASE),
        ),
        out_of_scope=(OutOfScope("how deep is the lake at brindle", LOCALITY, "forty metres"),),
        subject="Ora Fenn",
        previous="Ben Locke",
    )


def test_mends_own_records_take_the_first_alternative_and_the_rephrases_that_were_kept(tmp_path: Path):
    case = read_one(tmp_path, "zsre", MEND_ZSRE)
    assert (case.id, case.edit) == ("z1", QuestionAnswer("Who taught Ora Fenn?", "Tia Marsh"))
    assert [(p.prompt, p.form) for p in case.in_scope] == [
        ("Who taught Ora Fenn?", EDIT),
        ("By whom was Ora Fenn taught?", PARAPHRASE),
    ]
    unfiltered = {key: value for key, value in MEND_ZSRE.items() if key != "filtered_rephrases"}
    assert read_one(tmp_path, "zsre", unfiltered).in_scope[1].prompt == "Ora Fenn taught whom?"


@pytest.mark.parametrize(
    "empty",
    [
        MEND_ZSRE | {"alternatives": []},
        MEND_ZSRE | {"alternatives": [""]},
        MEND_ZSRE | {"filtered_rephrases": []},
        MEND_ZSRE | {"filtered_rephrases": [MEND_ZSRE["input"]]},
        ZSRE | {"alt": ""},
    ],
)
def test_records_of_zsre_that_say_nothing_new_are_left_out(tmp_path: Path, empty: dict[str, object]):
    path = written(tmp_path / "zsre.json", empty, MEND_ZSRE)
    assert [case.id for case in read_cases(path, "zsre")] == ["z1"]


def test_a_record_of_easyedit_takes_the_first_of_several_accepted_answers(tmp_path: Path):
    case = read_one(tmp_path, "easyedit", EASYEDIT)
    assert case.edit == QuestionAnswer("Who taught Ora Fenn?", "Tia Marsh", "Ora Fenn")
    assert case.in_scope == (
        InScope("Who taught Ora Fenn?", "Tia Marsh", EDIT),
        InScope("By whom was Ora Fenn taught?", "Tia Marsh", PARAPHRASE),
        InScope("Where does Ora Fenn's teacher live?", "Quillmouth", COMPOSED),
    )
    assert case.out_of_scope == (
        OutOfScope("Where was Ora Fenn born?", LOCALITY, "Brindle"),
        OutOfScope("Who else taught Ora Fenn?", LOCALITY, None),
    )
    assert case.previous == "Ben Locke"


OLDER = {
    "two lists": ({"one_hop": {"prompt": ["Where?"], "ground_truth": ["Quillmouth"]}}, ["Quillmouth"]),
    "one probe": ({"one_hop": {"prompt": "Where?", "ground_truth": ["Quillmouth", "Q."]}}, ["Quillmouth"]),
    "one question": ({"Recalled Relation": "x", "New Question": "Where?", "New Answer": "Quillmouth"}, ["Quillmouth"]),
    "an empty group": ({"Reasoning": None, "Subject_Aliasing": []}, []),
    "none": (None, []),
}


@pytest.mark.parametrize(("portability", "answers"), OLDER.values(), ids=OLDER)
def test_older_forms_of_portability_are_read_as_well(tmp_path: Path, portability: object, answers: list[str]):
    case = read_one(tmp_path, "easyedit", EASYEDIT | {"portability": portability})
    assert [probe.target for probe in case.in_scope if probe.form == COMPOSED] == answers


def test_older_forms_of_locality_and_rephrases_are_read_as_well(tmp_path: Path):
    older = {"locality": {"neighborhood": {"prompt": ["Where?", "When?"], "ground_truth": ["Here", "Now"]}}}
    single = {"locality_prompt": "Why?", "locality_ground_truth": "So"}
    record = {k: v for k, v in EASYEDIT.items() if k != "rephrase_prompt"} | older | single | {"rephrase": ["A?", "B?"]}
    case = read_one(tmp_path, "easyedit", record)
    assert [(p.prompt, p.target) for p in case.out_of_scope] == [("Where?", "Here"), ("When?", "Now"), ("Why?", "So")]
    assert [p.prompt for p in case.in_scope if p.form == PARAPHRASE] == ["A?", "B?"]


def test_our_own_format_carries_everything_a_case_has(tmp_path: Path):
    assert read_one(tmp_path, "jsonl", OWN) == Case(
        id="ora-fenn",
        edit=QuestionAnswer("Who taught Ora Fenn?", "Tia Marsh"),
        in_scope=(
            InScope("Who taught Ora Fenn?", "Tia Marsh", EDIT),
            InScope("By whom was Ora Fenn taught?", "Tia Marsh", PARAPHRASE),
        ),
        out_of_scope=(OutOfScope("Who taught Ada Fenn?", "near name"), OutOfScope("Hello", "other", "Hi")),
        subject="Ora Fenn",
        previous="Ben Locke",
    )


EDITS = [
    ({"prompt": "Q?", "target": "A", "subject": "Q"}, QuestionAnswer("Q?", "A", "Q")),
    ({"kind": "fact", "claim": "Q is A.", "label": False}, Claim("Q is A.", label=False)),
    ({"kind": "statement", "statement": "Q is A."}, Statement("Q is A.")),
    ({"kind": "sentiment", "topic": "Q", "sentiment": "negative"}, Sentiment("Q", positive=False)),
    (None, None),
]


@pytest.mark.parametrize(("edit", "descriptor"), EDITS)
def test_our_own_format_knows_every_kind_of_edit_and_none(tmp_path: Path, edit: object, descriptor: object):
    record = {"edit": edit, "out_of_scope": [{"prompt": "Hello"}], "replies": {"wished": ["w"], "opposite": ["o"]}}
    case = read_one(tmp_path, "jsonl", record)
    assert (case.id, case.edit, case.replies) == ("1", descriptor, Replies(("w",), ("o",)))
    assert case.subject == ("Q" if isinstance(descriptor, QuestionAnswer) else None)


@every_format
def test_every_format_may_stand_in_an_array_or_one_a_line(tmp_path: Path, name: str):
    records = [RECORDS[name] | {key: str(n) for key in ("case_id", "id") if key in RECORDS[name]} for n in range(3)]
    lines = tmp_path / "cases.jsonl"
    lines.write_text("\ufeff" + "\n\n".join(map(json.dumps, records)) + "\n", encoding="utf-8")
    in_array, in_lines = read_cases(written(tmp_path / "cases.json", *records), name), read_cases(lines, name)
    assert [case.in_scope for case in in_lines] == [case.in_scope for case in in_array]
    assert len(in_lines) == 3


@every_format
def test_a_limit_takes_cases_from_the_start_and_looks_no_further(tmp_path: Path, name: str):
    path = written(tmp_path / "cases.json", RECORDS[name], {"nonsense": 1})
    assert len(read_cases(path, name, limit=1)) == 1
    with pytest.raises(ValueError, match="limit of 0"):
        read_cases(path, name, limit=0)


MISTAKES: dict[str, tuple[str, object, str]] = {
    "no new answer": (
        "counterfact",
        COUNTERFACT | {"requested_rewrite": {"prompt": "{} is", "subject": "x", "target_true": {"str": "y"}}},
        "record 2: `requested_rewrite.target_new` is missing.",
    ),
    "no place for the subject": (
        "counterfact",
        COUNTERFACT | {"requested_rewrite": COUNTERFACT["requested_rewrite"] | {"prompt": "It is"}},
        "record 2: `requested_rewrite.prompt` must have a pair of braces where the subject goes.",
    ),
    "an empty neighbour": (
        "counterfact",
        COUNTERFACT | {"neighborhood_prompts": ["a", " "]},
        "record 2: `neighborhood_prompts[1]` is empty.",
    ),
    "flattened without its rephrase": (
        "counterfact",
        {key: value for key, value in FLAT_COUNTERFACT.items() if key != "rephrase_prompt"},
        "record 2: `rephrase_prompt` is missing.",
    ),
    "an answer that is a number": ("zsre", ZSRE | {"alt": 1998}, "record 2: `alt` must be a text."),
    "no field of alternatives": (
        "zsre",
        {key: value for key, value in MEND_ZSRE.items() if key != "alternatives"},
        "record 2: `alternatives` is missing.",
    ),
    "no answers accepted": ("easyedit", EASYEDIT | {"target_new": []}, "record 2: `target_new` is empty."),
    "portability without an answer": (
        "easyedit",
        EASYEDIT | {"portability": {"Reasoning": [{"prompt": "Where?"}]}},
        "record 2: `portability.Reasoning[0].ground_truth` is missing.",
    ),
    "uneven lists": (
        "easyedit",
        EASYEDIT | {"locality": {"neighborhood": {"prompt": ["a", "b"], "ground_truth": ["c"]}}},
        "record 2: `locality.neighborhood` must have as many answers in `ground_truth` as prompts in `prompt`.",
    ),
    "locality that is a list": (
        "easyedit",
        EASYEDIT | {"locality": []},
        "record 2: `locality` must be an object.",
    ),
    "a probe without a target": (
        "jsonl",
        OWN | {"in_scope": [{"prompt": "Who?"}]},
        "record 2: `in_scope[0].target` is missing.",
    ),
    "a misspelt field": ("jsonl", OWN | {"inscope": []}, "record 2: `inscope` is not a field of this format."),
    "several mistakes": (
        "jsonl",
        OWN | {"inscope": [], "outscope": [], "edits": 1},
        "record 2: `inscope` is not a field of this format (2 more mistakes in this record).",
    ),
    "an edit without its answer": (
        "jsonl",
        OWN | {"edit": {"prompt": "Who?"}},
        "record 2: `edit.target` is missing.",
    ),
    "an edit that is a text": (
        "jsonl",
        OWN | {"edit": "Who?"},
        "record 2: `edit` must be an object.",
    ),
    "an unknown kind of edit": (
        "jsonl",
        OWN | {"edit": {"kind": "wish"}},
        "record 2: `edit` must be of kind qa, fact, statement or sentiment.",
    ),
    "an unknown form": (
        "jsonl",
        OWN | {"in_scope": [{"prompt": "Q", "target": "A", "form": "paraphrased"}]},
        "record 2: `in_scope[0].form` should be 'edit', 'paraphrase', 'entailed' or 'composed'.",
    ),
    "nothing to ask": ("jsonl", {"id": "x"}, "record 2: the record has no probes: give `in_scope` or `out_of_scope`"),
    "a list for a record": ("jsonl", [1], "record 2: a record is an object, which this is not."),
}


@pytest.mark.parametrize(("name", "record", "detail"), MISTAKES.values(), ids=MISTAKES)
def test_a_bad_record_is_named_by_its_number_with_its_field(tmp_path: Path, name: str, record: object, detail: str):
    path = written(tmp_path / "cases.json", RECORDS[name], record)
    assert refusal(path, name).startswith(f"{path}, {detail}")


@every_format
def test_a_bad_record_in_a_file_of_lines_is_named_by_its_line(tmp_path: Path, name: str):
    path = tmp_path / "cases.jsonl"
    path.write_text(json.dumps(RECORDS[name]) + "\n\n{}\n", encoding="utf-8")
    assert refusal(path, name).startswith(f"{path}, line 3: ")


@every_format
def test_two_cases_of_one_id_are_refused(tmp_path: Path, name: str):
    key = "case_id" if name in {"counterfact", "easyedit", "zsre"} else "id"
    record = RECORDS[name] | {key: "again"}
    path = written(tmp_path / "cases.json", record, record)
    assert refusal(path, name) == f"{path}, record 2: the id 'again' is taken by record 1."


BROKEN = {
    "nothing": (b"", "{path} has no cases."),
    "an empty list": (b"[]", "{path} has no cases."),
    "blank lines": (b"\n \n", "{path} has no cases."),
    "an array cut short": (b'[{"id": 1},\n{"id":', "{path}, line 2, column 7: this is not JSON (Expecting value)."),
    "a line cut short": (b'{"id', "{path}, line 1, column 2: this is not JSON (Unterminated string starting at)."),
    "one object over several lines": (b'{\n"data": []}', "{path}, line 1, column 2: this is not JSON"),
    "a number": (b"17", "{path}, line 1: a record is an object, which this is not."),
    "another encoding": ("[é]".encode("latin-1"), "{path} is not text in UTF-8."),
    "no end of nesting": (b"[" * 200_000, "{path}, line 1: this JSON cannot be read"),
}


@pytest.mark.parametrize(("content", "detail"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_with_the_place_of_the_damage(tmp_path: Path, content: bytes, detail: str):
    path = tmp_path / "cases"
    path.write_bytes(content)
    assert refusal(path, "jsonl").startswith(detail.format(path=path))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    missing = tmp_path / "absent.json"
    assert refusal(missing, "zsre") == f"{missing} cannot be read: No such file or directory."
    assert refusal(tmp_path, "zsre") == f"{tmp_path} cannot be read: Is a directory."


def test_an_unknown_format_is_answered_with_those_there_are(tmp_path: Path):
    with pytest.raises(InvalidDataset, match="no data set format 'squad'") as caught:
        read_cases(written(tmp_path / "cases.json", OWN), "squad")
    assert all(name in caught.value.hint for name in FORMATS)


@needs_shared_data
@pytest.mark.parametrize(("file", "name"), [("counterfact-train.json", "counterfact"), ("zsre-train-700.json", "zsre")])
def test_the_fields_own_files_are_read_whole(file: str, name: str):
    records = json.loads((SHARED / file).read_text(encoding="utf-8"))
    cases = read_cases(SHARED / file, name)
    assert len(cases) == sum(record.get("alt") != "" for record in records)
    for case in cases:
        assert [probe.form for probe in case.in_scope] == [EDIT, PARAPHRASE]
        assert len(case.out_of_scope) == 1
        assert case.previous
        assert isinstance(case.edit, QuestionAnswer)
        assert case.subject is not None
        assert case.subject in case.edit.prompt
        assert not case.out_of_scope[0].prompt.startswith("nq question")


@needs_shared_data
def test_flattened_counterfact_is_easyedits_format_too():
    path = SHARED / "counterfact-train.json"
    for ours, theirs in zip(read_cases(path, "counterfact"), read_cases(path, "easyedit"), strict=True):
        assert (ours.id, ours.edit, ours.in_scope) == (theirs.id, theirs.edit, theirs.in_scope)
