"""The OpenAPI document and docs/http.md say what the service does."""

import json
import re
import shlex
from pathlib import Path

import pytest

pytestmark = pytest.mark.anyio

HTTP_MD = (Path(__file__).parents[3] / "docs" / "http.md").read_text()
SECTIONS = re.findall(r"^## ([A-Z]+ /\S*)\n(.*?)(?=^## |\Z)", HTTP_MD, re.MULTILINE | re.DOTALL)

OTHER_KINDS = {
    "report": "text/html",
    "events": "text/event-stream",
    "edits/export": "application/x-ndjson",
    "{version_id}/export": "application/x-tar",
    "metrics": "text/plain",
}
"""What endpoints answer with that do not answer with JSON, by how their path ends."""
STREAMED = {f"POST {path}": ["text/event-stream"] for path in ("/generate", "/v1/completions", "/v1/chat/completions")}
"""What they answer with beside that, where it is asked for."""


@pytest.fixture
async def document(client):
    return (await client.get("/openapi.json")).json()


def operations(document):
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


async def test_every_endpoint_has_its_section_and_every_section_its_endpoint(document):
    assert sorted(title for title, _ in SECTIONS) == sorted(operations(document))


async def test_every_field_and_parameter_of_a_request_is_in_the_documentation(document):
    bodies = [
        schema
        for name, schema in document["components"]["schemas"].items()
        if name.endswith("Body") or name.startswith("New")
    ]
    assert bodies
    fields = {name for schema in bodies for name in schema["properties"]}
    parameters = {p["name"] for operation in operations(document).values() for p in operation.get("parameters", ())}
    unmentioned = {name for name in fields | parameters if not re.search(rf"\b{name}\b", HTTP_MD)}
    assert unmentioned == set()


async def test_every_operation_is_described_with_all_its_answers(document):
    for name, operation in operations(document).items():
        answers = operation["responses"]
        assert operation["summary"], name
        assert operation["description"], name
        assert "500" in answers, name
        openai = " /v1/" in name
        assert (("400" if openai else "422") in answers) >= ("requestBody" in operation), name
        assert "422" not in answers or not openai, name
        refusal = "application/json" if openai else "application/problem+json"
        for status, answer in answers.items():
            if status == "204":
                continue
            sent = other_kind(name) or "application/json"
            kinds = [sent, *STREAMED.get(name, ())] if status < "300" else [refusal]
            assert list(answer["content"]) == kinds, (name, status)
            assert all(answer["content"][kind]["schema"] for kind in kinds), (name, status)


async def test_every_reference_in_the_document_leads_somewhere(document):
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert references <= set(document["components"]["schemas"])
    assert "HTTPValidationError" not in references


async def test_every_operation_has_a_name_of_its_own(document):
    names = [operation["operationId"] for operation in operations(document).values()]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z_]+", name) for name in names)


async def test_the_examples_run_and_answer_as_shown(client):
    for title, text in SECTIONS:
        method, path, body, headers = parse_curl(re.search(r"```sh\n(.*?)```", text, re.DOTALL)[1])
        assert re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", title), f"{method} {path.partition('?')[0]}")
        response = await client.request(method, path, content=body, headers=headers)
        shown = re.search(r"```json\n(.*?)```", text, re.DOTALL)
        other = other_kind(title) or "nothing"
        if shown is None and f"`{other}`" in text:
            assert response.headers["Content-Type"].startswith(other), title
        elif shown is None:
            assert (response.status_code, response.content) == (204, b""), title
        else:
            expected = json.loads(shown[1])
            assert response.status_code in {expected.get("status"), 200, 201, 202}, (title, response.text)
            assert shape(response.json()) == shape(expected), title


def other_kind(title):
    return next((kind for end, kind in OTHER_KINDS.items() if title.endswith(f"/{end}")), None)


def parse_curl(command):
    words = iter(shlex.split(command)[1:])
    method, body, headers, url = "GET", None, {}, ""
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "--json":
            method, body = "POST", next(words)
            headers["Content-Type"] = "application/json"
        elif word == "--data-binary":
            method, body = "POST", next(words)
        else:
            url = word
    return method, url.removeprefix("http://127.0.0.1:8000"), body, headers


def shape(value):
    """Names and nesting, without the values (and without the encoder's own figures, and the methods' own settings)."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items() if name not in {"memory", "config"}}
    return [shape(inner) for inner in value] if isinstance(value, list) else None
