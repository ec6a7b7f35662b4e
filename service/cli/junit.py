"""A smoke test's verdict as JUnit XML, which CI systems read: a test case for each edit, and one for each bound.

The failures in it are those that fail the smoke test: of an edit whose probes failed while the bound they count towards
holds, they are written down as its output.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from service.cli.edits import text_of
from service.cli.verdict import Verdict

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped."""


def junit(verdict: Verdict) -> str:
    """The document."""
    suite = Element("testsuite", name="errata smoke")
    for edit in verdict.edits:
        _edit_case(suite, verdict, edit["id"], f"{edit['id']}: {text_of(edit)}")
    in_force = {edit["id"] for edit in verdict.edits}
    for case in verdict.failures:
        if case not in in_force:
            _edit_case(suite, verdict, case, case)
    _bound_cases(suite, verdict)
    suite.set("tests", str(len(suite)))
    suite.set("errors", "0")
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    if verdict.evaluation is not None:
        suite.set("time", f"{verdict.evaluation['report']['seconds']:.3f}")
    document = Element("testsuites")
    document.append(suite)
    indent(document)
    return tostring(document, encoding="unicode") + "\n"


def _edit_case(suite: Element, verdict: Verdict, case: str, name: str) -> None:
    element = SubElement(suite, "testcase", classname="errata.smoke.edits", name=_said(" ".join(name.split())))
    blamed = verdict.blamed(case)
    if blamed:
        message = f"{len(blamed)} probes failed"
        SubElement(element, "failure", message=message).text = _lines(blamed)
    elif case in verdict.failures:
        SubElement(element, "system-out").text = _lines(verdict.failures[case])
    elif verdict.unlisted:
        SubElement(element, "skipped", message="The report does not list every failure, and none of this edit.")


def _bound_cases(suite: Element, verdict: Verdict) -> None:
    for bound in verdict.bounds:
        element = SubElement(suite, "testcase", classname="errata.smoke.bounds", name=bound.wanted)
        if bound.measured is None:
            SubElement(element, "skipped", message=str(bound))
        elif not bound.holds:
            SubElement(element, "failure", message=str(bound))


def _lines(failures: list[dict[str, object]]) -> str:
    return _said(
        "\n".join(
            f"{'in scope' if failure['in_scope'] else 'out of scope'}: {failure['prompt']!r}"
            f" gave {failure['got']!r}, expected {failure['expected']!r}"
            for failure in failures
        )
    )


def _said(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
