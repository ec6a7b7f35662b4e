"""What the OpenAPI document says is what the service does, whatever requests are made up from it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from contextlib import suppress

import hypothesis
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.actions.services import Services
from service.app import create_app
from service.store.store import PostgresStore
from tests.fakes import ExactRuntime

PROMISED = {"/problems/not-caught-up"}
"""What answers with 503 because the request asks for what may never come."""


@schemathesis.check
def answered(context, response, case):
    """No answer is a server error."""
    if response.status_code >= 500 and response.json().get("type") not in PROMISED:
        raise AssertionError(f"{response.status_code}: {response.text}")


@schemathesis.serializer("application/x-ndjson")
def as_it_is(context, value):
    return {"data": value.encode() if isinstance(value, str) else value}


LINES = st.lists(st.fixed_dictionaries({"prompt": st.text(), "target": st.text()}), min_size=1, max_size=3)
schemathesis.openapi.media_type(
    "application/x-ndjson", LINES.map(lambda lines: "\n".join(map(json.dumps, lines)).encode())
)

SECONDS = 120
"""For an answer: the machine may be busy."""

CHECKS = [
    answered,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture
def url(database_url, baker, artifacts):
    """A service in this process, on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        async def serve():
            async with PostgresStore(database_url) as store:
                app = create_app(Services(store, ExactRuntime(store), baker, artifacts))
                server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5))
                serving = asyncio.create_task(server.serve(sockets=[listener]))
                await asyncio.to_thread(stop.wait)
                server.should_exit = True
                await serving

        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        stop.set()
        thread.join()


@pytest.fixture
def schema(url):
    # What is followed as events has no end while nobody bakes.
    return schemathesis.openapi.from_url(f"{url}/openapi.json", timeout=SECONDS).exclude(path_regex="/events$")


def few(examples, **more):
    """Settings: the same requests every time, none of them a matter of how fast the machine is."""
    return hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        **more,
    )


@pytest.mark.parametrize("mode", schemathesis.GenerationMode)
def test_every_answer_to_a_request_made_up_from_the_document_or_against_it_is_documented(schema, mode):
    asked = []
    for found in schema.get_all_operations():
        operation = found.ok()

        @few(6)
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def ask(case):
            case.validate_response(case.call(timeout=SECONDS), checks=CHECKS)

        with suppress(Unsatisfiable):  # what takes nothing cannot be asked against the document
            ask()
            asked.append(operation.label)
    assert len(asked) > 10


def test_every_answer_along_the_links_of_the_document_is_documented(schema):
    followed = set()

    class Walk(schema.as_state_machine()):
        def get_call_kwargs(self, case):
            return super().get_call_kwargs(case) | {"timeout": SECONDS}

        def validate_response(self, response, case, **_):
            case.validate_response(response, checks=CHECKS)
            if response.status_code < 300:
                followed.add(case.operation.label)

    Walk.run(settings=few(15, stateful_step_count=8))
    assert {"POST /edits", "GET /edits/{edit_id}", "DELETE /edits/{edit_id}"} <= followed
