"""The loopback provider's raw HTTP: frames, garbage, many at once, and a clean end."""

import http.client
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from provider_calls import ask, only

from costspan.conformance.provider import LoopbackProvider


def test_raw_stream_frames(provider: LoopbackProvider) -> None:
    connection = http.client.HTTPConnection(provider.url.removeprefix("http://"))
    body = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    for _ in range(2):  # The connection is kept alive.
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        reply = connection.getresponse()
        assert reply.getheader("content-type", "").startswith("text/event-stream")
        events = reply.read().decode().split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        first = json.loads(events[0].removeprefix("data: "))
        assert first["object"] == "chat.completion.chunk"
        assert "usage" not in first
    connection.close()
    assert len(provider.truth) == 2


GARBAGE = [
    b"",
    b"{",
    b"[]",
    b'{"model": 3, "messages": []}',
    b'{"model": "gpt-4o"}',
    b'{"model": "gpt-4o", "messages": [1]}',
    b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}], "n": 0}',
    b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "[[in=x]]"}]}',
    b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "[[nope=1]]"}]}',
    b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "[[in=1 cached=2]]"}]}',
    b"[" * 100_000,
    b"\xff\xfe",
]


@pytest.mark.parametrize("body", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_a_400_with_a_row(provider: LoopbackProvider, body: bytes) -> None:
    reply = httpx.post(f"{provider.base_url}/chat/completions", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert (only(provider).status, only(provider).billed) == (400, False)


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/nowhere HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"BREW /v1/models HTTP/1.1\r\n\r\n",
        b"GET /v1/chat/completions HTTP/1.1\r\nConnection: close\r\n\r\n",
    ],
)
def test_raw_garbage_gets_an_error_and_an_end(provider: LoopbackProvider, raw: bytes) -> None:
    host, port = provider.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(raw)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) in (400, 404, 405, 501)
    assert "error" in json.loads(body)
    assert httpx.get(f"{provider.base_url}/models").status_code == 200


def test_a_chunked_request_body_is_read(provider: LoopbackProvider) -> None:
    parts = [
        b'{"model": "gpt-4o", "messages": [{"role": "user", ',
        b'"content": "[[in=4 out=2]]"}]}',
    ]
    reply = httpx.post(f"{provider.base_url}/chat/completions", content=iter(parts))
    assert reply.json()["usage"]["total_tokens"] == 6


def test_many_at_once_are_all_written_down(provider: LoopbackProvider) -> None:
    def work(number: int) -> int:
        with openai.OpenAI(base_url=provider.base_url, api_key="k") as client:
            text = f"[[in={number} out=3 tenant=t{number % 4}]]"
            if number % 2:
                return sum(len(c.choices) for c in ask(client, text, stream=True))
            total: int = ask(client, text).usage.total_tokens
            return total

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(1, 49)))
    rows = provider.truth
    assert [row.seq for row in rows] == list(range(1, 49))
    want = {
        f"t{t}": sum(n * 2_500_000 + 30_000_000 for n in range(1, 49) if n % 4 == t)
        for t in range(4)
    }
    assert provider.totals(by="tenant") == want


def test_closing_hangs_up_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    provider = LoopbackProvider().start()
    with (
        httpx.Client() as client,
        ThreadPoolExecutor(1) as pool,
    ):
        client.get(f"{provider.base_url}/models")  # Idle, kept alive.
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "[[fault=timeout]]"}]}
        url = f"{provider.base_url}/chat/completions"
        held = pool.submit(httpx.post, url, json=body, timeout=30)
        assert provider.wait_received(1)
        provider.close()
        provider.close()
        assert isinstance(held.exception(), httpx.RemoteProtocolError)
    assert set(threading.enumerate()) <= before
    assert [(row.billed, row.delivery) for row in provider.truth] == [(True, "disconnected")]
    with pytest.raises(httpx.ConnectError):
        httpx.get(provider.url)
