from __future__ import annotations

import json

import pytest

from editors.errors import InvalidDataset
from editors.surgery.texts import read_texts


def test_a_text_file_has_a_text_a_line(tmp_path):
    file = tmp_path / "corpus.txt"
    file.write_text("Paris lies on the Seine.\n\n  München liegt an der Isar. \n", encoding="utf-8")
    assert read_texts(file) == ["Paris lies on the Seine.", "München liegt an der Isar."]


def test_of_json_lines_the_text_is_read(tmp_path):
    file = tmp_path / "corpus.jsonl"
    file.write_text("\n".join(json.dumps({"text": text, "id": 1}) for text in ("One.", " ", "Two.")), encoding="utf-8")
    assert read_texts(file) == ["One.", "Two."]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("corpus.csv", b"a,b", "no corpus by its name"),
        ("corpus.txt", b"\n \n", "has no text"),
        ("corpus.txt", b"\xff\xfe", "cannot be read"),
        ("corpus.jsonl", b'{"text": "One."}\n{"text": 2}', "line 2"),
        ("corpus.jsonl", b'{"text": "One."}\n\n{"body": "Two."}', "line 3"),
        ("corpus.jsonl", b'["One."]', "line 1"),
    ],
)
def test_what_is_no_corpus_is_refused_and_named(tmp_path, name, content, says):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InvalidDataset, match=says) as caught:
        read_texts(file)
    assert str(file) in caught.value.detail


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(InvalidDataset, match="No such file"):
        read_texts(tmp_path / "corpus.txt")
