"""The benchmark of imports: what it sends, and how it writes what it measured."""

from __future__ import annotations

from benchmarks.imports import made, percentiles, render

WAITED = {"p50": 64.2, "p95": 74.0, "max": 80.0}


def test_every_edit_has_a_prompt_of_its_own():
    prompts = [edit["prompt"] for edit in [*made(20_000), *made(200, first=20_000)]]
    assert len(set(prompts)) == 20_200


def test_waits_are_told_in_milliseconds():
    assert percentiles([0.001] * 19 + [0.1]) == {"p50": 1.0, "p95": 5.95, "max": 100.0}


def test_the_table_adds_up_and_divides():
    figures = {
        "edits": 10_000,
        "bytes": 1_100_000,
        "load_before": 0.5,
        "seconds": {"checks": 0.5, "embedding": 22.0, "commit and install": 4.5},
        "import_ms_per_edit": 2.7,
        "post_ms_per_edit": 27.0,
        "export_seconds": 0.8,
        "exported": 10_000,
        "encoder_bytes": 2e8,
        "bytes_per_edit": 3_508.2,
        "peak_bytes_per_edit": 4_000.0,
        "answered_by_their_own_edit": 1.0,
        "ask_ms_alone": WAITED,
        "ask_ms_meanwhile": WAITED,
    }
    lines = render(figures)
    assert lines[0] == "| 10,000 edits, a file of 1.1 MB | |"
    assert "| import, until all are in force | 27.0 s |" in lines
    assert "| the second by the first | 10.0 |" in lines
    assert "| memory per edit, afterwards | 3,508 bytes |" in lines
    assert "| and during the import | 64 / 74 / 80 |" in lines
    assert lines[-3].endswith("200 MB by then.")
    assert lines[-1] == "Load of the machine before: 0.5."
