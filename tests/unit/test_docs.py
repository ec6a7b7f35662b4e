from __future__ import annotations

import re
from pathlib import Path

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
