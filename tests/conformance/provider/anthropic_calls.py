"""What the tests of Anthropic's wire share: requests of known cost, and how they are asked."""

import json
from datetime import UTC, datetime
from typing import Any

import httpx

from costspan.conformance.provider import LoopbackProvider, Row

CACHED = "[[in=1000 cached=400 cache_write=100 cache_write_1h=50 out=200 tenant=acme]]"
CACHED_PARTS = {
    "input": 450,
    "cache_read": 400,
    "cache_write_5m": 100,
    "cache_write_1h": 50,
    "output": 200,
}
# 450 x 3.00 + 400 x 0.30 + 100 x 3.75 + 50 x 6.00 + 200 x 15.00 = 5145 USD per 1M tokens.
CACHED_PICO = 5_145_000_000


def body(content: object, **more: object) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": "claude-sonnet-4-5", "max_tokens": 64, "messages": messages, **more}


def post(provider: LoopbackProvider, content: object, **more: object) -> httpx.Response:
    headers = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
    return httpx.post(f"{provider.url}/v1/messages", json=body(content, **more), headers=headers)


def report(provider: LoopbackProvider, name: str, row: Row, **query: str) -> list[Any]:
    """The results of the day of a row, from Anthropic's admin API."""
    day = datetime.fromtimestamp(row.received_ns // 10**9, UTC).strftime("%Y-%m-%dT00:00:00Z")
    reply = httpx.get(
        f"{provider.url}/v1/organizations/{name}",
        params={"starting_at": day, **query},
        headers={"x-api-key": "admin", "anthropic-version": "2023-06-01"},
    )
    page = reply.raise_for_status().json()
    assert (page["has_more"], page["next_page"]) == (False, None)
    return [result for bucket in page["data"] for result in bucket["results"]]


def events(reply: httpx.Response) -> list[dict[str, Any]]:
    assert reply.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in reply.text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


TOOLS = """[[in=50 out=9 text="let me see" tool='search:{"q": "a b"}' tool=stop]]"""
