"""A batch is one operation: its polls repeat the same usage, and mint no attempts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import litellm
import pytest

import costspan
from costspan.adapters.litellm import flush, install
from costspan.conformance.provider import LoopbackProvider
from costspan.core.schema import Observation

_LINE = {
    "custom_id": "1",
    "response": {
        "status_code": 200,
        "body": {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": "gpt-4o-2024-08-06",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        },
    },
}


class BatchApi(BaseHTTPRequestHandler):
    """The batch endpoints the loopback provider does not have; every other poll has finished."""

    polls = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._reply(self._batch("validating"))

    def do_GET(self) -> None:
        if self.path.endswith("/content"):
            return self._reply(_LINE)
        type(self).polls += 1
        self._reply(self._batch("in_progress" if self.polls == 1 else "completed"))

    def _batch(self, status: str) -> dict[str, Any]:
        return {
            "id": "batch_1",
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": "file-in",
            "output_file_id": "file-out" if status == "completed" else None,
            "completion_window": "24h",
            "status": status,
            "created_at": 1_700_000_000,
            "completed_at": 1_700_000_900 if status == "completed" else None,
            "request_counts": {"total": 1, "completed": 1, "failed": 0},
        }

    def _reply(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on stderr."""


@pytest.fixture
def batch_api() -> Iterator[dict[str, Any]]:
    install()
    BatchApi.polls = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), BatchApi) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield {"api_base": f"http://127.0.0.1:{server.server_port}/v1", "api_key": "any"}
        server.shutdown()


async def test_three_polls_of_a_finished_batch_are_one_event(
    recorded: Callable[[], list[Observation]], batch_api: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {"custom_llm_provider": "openai", **batch_api}
    with costspan.attribute("acme"):
        await litellm.acreate_batch(
            completion_window="24h",
            endpoint="/v1/chat/completions",
            input_file_id="file-in",
            **asked,
        )
    for _ in range(4):
        await litellm.aretrieve_batch(batch_id="batch_1", **asked)
    await flush()

    created, *polled = recorded()
    assert {o.attempt_id for o in (created, *polled)} == {None}
    assert {o.operation_ids for o in (created, *polled)} == {("batch:batch_1",)}
    assert (created.phase, created.tenant, created.cause) == ("start", "acme", "batch")
    assert len(polled) == 3  # the first of the four polls found it unfinished, and said nothing
    for poll in polled:
        assert (poll.phase, poll.provider_result, poll.tier) == ("end", "ok", "batch")
        assert poll.usage == {"input": 10, "output": 5}
        assert poll.executed_model == "gpt-4o-2024-08-06"
        assert (poll.started_at, poll.ended_at) == (1_700_000_000 * 10**9, 1_700_000_900 * 10**9)
        assert poll.tenant is None  # a poll is no owner: one worker may poll for all


def test_a_sync_poll_is_measured_too(
    recorded: Callable[[], list[Observation]],
    provider: LoopbackProvider,
    wait_for_callbacks: Callable[[], None],
) -> None:
    # LiteLLM passes a sync poll's usage on in OpenAI's newer words, with zeros in the older.
    install()
    at: dict[str, Any] = {
        **{"custom_llm_provider": "openai", "api_base": provider.base_url, "api_key": "any"}
    }
    lines = "\n".join(
        json.dumps(
            {
                "custom_id": str(n),
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": "gpt-4o",
                    "messages": [{"role": "user", "content": "[[in=100 out=20]]"}],
                },
            }
        )
        for n in range(3)
    )
    with costspan.attribute("acme"):
        file: Any = litellm.create_file(file=("in.jsonl", lines.encode()), purpose="batch", **at)
        created: Any = litellm.create_batch(
            completion_window="24h",
            endpoint="/v1/chat/completions",
            input_file_id=file.id,
            **at,
        )
    polled: Any = None
    while polled is None or polled.status != "completed":
        polled = litellm.retrieve_batch(batch_id=created.id, **at)
    wait_for_callbacks()
    start, end = recorded()
    assert (start.phase, start.tenant) == ("start", "acme")
    assert start.operation_ids == end.operation_ids == (f"batch:{created.id}",)
    assert (end.usage, end.usage_source) == ({"input": 300, "output": 60}, "provider")
