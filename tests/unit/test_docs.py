from __future__ import annotations

import re
from pathlib import Path

from typer.main import get_command

from benchmarks.report import INDEX, RESULTS, index
from service.cli import app

ROOT = Path(__file__).parents[2]


def test_the_skips_page_lists_exactly_the_files_that_skip():
    marks = re.compile(r"pytest\.(mark\.)?(skip|skipif|importorskip|xfail)\(")
    skipping = {
        str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py") if marks.search(path.read_text("utf-8"))
    }
    page = (ROOT / "docs" / "skips.md").read_text("utf-8")
    assert skipping == set(re.findall(r"^\| `(tests/[^`]+)`", page, re.MULTILINE))


def test_links_between_the_documents_lead_somewhere():
    broken = [
        f"{page.name}: {target}"
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_the_page_of_benchmarks_leads_to_every_one_of_them():
    assert INDEX.read_text("utf-8") == index()
    assert {page.stem for page in RESULTS.glob("*.md")} == {page.stem for page in RESULTS.glob("*.json")}


def test_every_program_that_writes_a_page_is_run_by_make_benchmark():
    run = set(re.findall(r"-m benchmarks\.(\w+)", (ROOT / "Makefile").read_text("utf-8")))
    assert {page.stem for page in RESULTS.glob("*.md")} <= run


def test_every_command_is_described_somewhere():
    text = "\n".join(page.read_text("utf-8") for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    commands = set(get_command(app).commands)
    assert {"serve", "bench"} <= commands
    assert [name for name in sorted(commands) if f"errata {name}" not in text] == []
