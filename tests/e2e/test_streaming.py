"""Callers who stream, dawdle and leave, on a real connection."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

import httpx

from benchmarks.running import RunningServer

LONG = {"prompt": "Who is the prime minister of the UK?", "max_new_tokens": 200, "temperature": 2, "seed": 1}


def running(client: httpx.Client) -> float:
    page = client.get("/metrics").text
    found = re.search(r"^errata:num_requests_running (\S+)$", page, re.MULTILINE)
    assert found is not None
    return float(found[1])


def connected(server: RunningServer, body: dict[str, object]) -> socket.socket:
    """A connection on which a question has been sent and nothing has been read."""
    address = urlsplit(server.url)
    assert address.hostname is not None and address.port is not None
    connection = socket.create_connection((address.hostname, address.port), timeout=120)
    content = json.dumps(body).encode()
    head = ["POST /generate HTTP/1.1", "Host: errata", "Content-Type: application/json", "Connection: close"]
    lines = [*head, f"Content-Length: {len(content)}", "", ""]
    connection.sendall("\r\n".join(lines).encode() + content)
    return connection


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_streamed_answer_is_the_unstreamed_one(client: httpx.Client):
    pieces, end = [], None
    with client.stream("POST", "/generate", json=LONG | {"stream": True}) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        kind = ""
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data" and kind == "text":
                pieces.append(json.loads(value)["text"])
            elif name == "data":
                end = json.loads(value)
    assert len(pieces) > 1
    expected = client.post("/generate", json=LONG).json()
    assert "".join(pieces) == expected["text"]
    assert end == expected


def test_a_caller_who_reads_byte_by_byte_holds_nobody_up(server: RunningServer, client: httpx.Client):
    with connected(server, LONG | {"stream": True}) as slow:
        read = [slow.recv(1) for _ in range(20)]
        for _ in range(3):
            assert client.post("/generate", json=LONG).status_code == 200
            read.append(slow.recv(1))
        while byte := slow.recv(4096):
            read.append(byte)
    assert b"event: end" in b"".join(read)


def test_callers_who_read_a_byte_at_a_time_do_not_keep_their_places_with_the_model(
    server: RunningServer, client: httpx.Client
):
    with ExitStack() as stack:
        bodies = [LONG | {"stream": True, "seed": seed} for seed in range(100, 148)]
        slow = [stack.enter_context(connected(server, body)) for body in bodies]
        read = [bytearray() for _ in slow]
        while not all(read) or running(client) > 0:  # more than the model answers at once; each has its turn
            for connection, content in zip(slow, read, strict=True):
                connection.settimeout(0)
                with suppress(BlockingIOError):
                    content += connection.recv(1)
        assert max(map(len, read)) < 4096
        assert client.post("/generate", json=LONG | {"seed": 148}).status_code == 200
        for connection, content in zip(slow, read, strict=True):
            connection.settimeout(120)
            while byte := connection.recv(4096):
                content += byte
    assert all(b"event: end" in content for content in read)


def test_a_caller_who_leaves_takes_the_request_along(server: RunningServer, client: httpx.Client):
    for stream in (False, True):
        gone = [connected(server, LONG | {"stream": stream, "seed": seed}) for seed in range(16)]
        until(lambda: running(client) > 0)
        for connection in gone:
            connection.close()
        assert client.post("/generate", json=LONG).status_code == 200
        until(lambda: running(client) == 0)
