"""Bodies, paths and headers that no client would send: refused, in few words, and never with a server error."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.anyio

PATHS = ["/edits", "/edits/preview", "/edits/match", "/edits/import", "/generate", "/eval", "/bakes"]
GOOD = {"prompt": "a", "target": "b"}
BAKE = {"method": "rome", "dry_run": True}
TEN_MB = 10 << 20
LONGEST_REFUSAL = 64 << 10


def nested(depth, opening="[", closing="]"):
    return opening * depth + closing * depth


async def send(client, path, body, method="POST"):
    content = body.encode() if isinstance(body, str) else body
    kind = "application/x-ndjson" if path == "/edits/import" else "application/json"
    return await client.request(method, path, content=content, headers={"Content-Type": kind})


def assert_refused(response):
    assert response.status_code in {400, 404, 409, 413, 422}, (response.status_code, response.text[:500])
    assert response.headers["Content-Type"] == "application/problem+json"
    assert len(response.content) < LONGEST_REFUSAL


@pytest.mark.parametrize("depth", [100, 500, 900, 2_000, 100_000])
@pytest.mark.parametrize("path", PATHS)
async def test_deeply_nested_json_is_refused(client, post, path, depth):
    await post(**GOOD)
    deep, objects = nested(depth), nested(depth, '{"a":', "}").replace(":}", ":1}", 1)
    assert json.loads(nested(100, '{"a":', "}").replace(":}", ":1}", 1))
    for body in (deep, objects, f'{{"prompt": {deep}}}', f'{{"prompt": "a", "target": "b", "tags": {deep}}}'):
        assert_refused(await send(client, path, body))
    for name in ("config", "gate", "edits"):
        assert_refused(await send(client, "/bakes", f'{{"method": "rome", "{name}": {objects}}}'))


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(GOOD | {"prompt": "x" * TEN_MB}),
        json.dumps(GOOD | {"tags": ["t"] * (TEN_MB // 6)}),
        json.dumps(GOOD | {"scope": {"in_scope": ["x" * 30_000] * (TEN_MB // 30_000)}}),
        json.dumps({f"unknown {number}": 1 for number in range(200_000)}),
        json.dumps({"x" * TEN_MB: 1}),
        json.dumps({"prompts": ["a"] * (TEN_MB // 6)}),
        " " * TEN_MB + "x",
        "1" * TEN_MB,
        b"\xff" * TEN_MB,
    ],
    ids=["text", "tags", "scope", "fields", "name", "prompts", "spaces", "digits", "bytes"],
)
@pytest.mark.parametrize("path", ["/edits", "/edits/import", "/edits/match", "/bakes"])
async def test_ten_megabytes_are_refused_in_few_words(client, path, body):
    assert_refused(await send(client, path, body))


@pytest.mark.parametrize(
    "name",
    [
        "%00",
        "e1%00",
        "%ff",
        "e" + "9" * 400,
        "e-1",
        "%F0%9F%98%80",
        "' OR '1'='1",
        "{{7*7}}",
        "e1;x",
        "%2e%2e%2f",
        "e1?",
    ],
)
async def test_no_name_in_a_path_is_more_than_a_name_that_nothing_has(client, name):
    for path in ("/edits/{}", "/edits/{}/history", "/bakes/{}", "/eval/{}", "/eval/{}/report", "/checkpoints/{}"):
        assert_refused(await client.get(path.format(name)))


@pytest.mark.parametrize("value", [b"\xff\xfe", b"\xf0\x9f\x98\x80", b"'; --", b"x" * 60_000, b"\t", b'a,b,"c'])
@pytest.mark.parametrize("header", ["Idempotency-Key", "If-Match", "X-Request-Id", "X-Session-Id", "Accept"])
async def test_no_header_is_more_than_text(client, header, value):
    headers = {header: value, "Content-Type": "application/json"}
    for method, path, body in (
        ("POST", "/edits", GOOD),
        ("PATCH", "/edits/e1", {"target": "c"}),
        ("POST", "/generate", {"prompt": "a"}),
    ):
        response = await client.request(method, path, content=json.dumps(body), headers=headers)
        assert response.status_code < 500, response.text[:500]
        assert len(response.content) < LONGEST_REFUSAL
