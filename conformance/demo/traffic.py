"""What the three tenants of the demo do, all at once, over real HTTP.

The text in double brackets tells the loopback provider how to behave and what to note in its truth
ledger; costspan never reads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import httpx

_SEARCH = """tool='search:{"query": "refunds"}'"""


class Ask(NamedTuple):
    """One request of one tenant, and what it shows."""

    tenant: str
    path: str
    body: dict[str, str]
    shows: str


def asks() -> list[list[Ask]]:
    """The requests: the inner lists in order, the outer ones at once."""
    return [_acme(), _globex(), _initech()]


def _acme() -> list[Ask]:
    who = "tenant=acme"
    return [
        Ask(
            "acme",
            "/chat",
            {
                "session": "acme-1",
                "safety": f"[[{who} purpose=safety in=600 out=5]] is this allowed?",
                "question": f"[[{who} purpose=agent in=1500 out=120 {_SEARCH}]]"
                " [[in=2100 out=240 cached=1024]] how do refunds work?",
                "summary": f"[[{who} purpose=background in=900 out=80]] sum the talk up",
            },
            "an agent that plans, calls a tool and answers; a background summary",
        ),
        Ask(
            "acme",
            "/stream",
            {"question": f"[[{who} purpose=stream in=800 out=300]] tell me more"},
            "a streamed answer",
        ),
    ]


def _globex() -> list[Ask]:
    who = "tenant=globex"
    return [
        Ask(
            "globex",
            "/chat",
            {
                "session": "globex-1",
                "safety": f"[[{who} purpose=safety in=700 out=5]] is this allowed?",
                "question": f"[[{who} purpose=retry status=503 times=1 in=1200 out=200]] and now?",
            },
            "the provider fails once and is asked again",
        ),
        Ask(
            "globex",
            "/stream",
            {"question": f"[[{who} purpose=stream in=400 out=90]] in short"},
            "a streamed answer",
        ),
    ]


def _initech() -> list[Ask]:
    who = "tenant=initech"
    faq = {"question": f"[[{who} purpose=faq in=500 out=60]] where is my stapler?"}
    return [
        Ask(
            "initech",
            "/chat",
            {
                "session": "initech-1",
                "safety": f"[[{who} purpose=safety in=500 out=5]] is this allowed?",
                "question": f"[[{who} purpose=fallback status=503 times=2"
                " in=2000 out=400]] the report, please",
            },
            "gpt-4o stays down, gpt-4o-mini answers instead",
        ),
        Ask("initech", "/faq", faq, "a question asked for the first time"),
        Ask("initech", "/faq", faq, "the same question, answered from the cache"),
    ]


async def send_all(base_url: str, sent: Callable[[Ask], None]) -> None:
    """Send every request, three tenants at once; `sent` is told of each that was answered.

    Raises:
        httpx.HTTPError: if the app answers with an error.
    """
    async with httpx.AsyncClient(base_url=base_url, timeout=60.0) as client:

        async def one_tenant(requests: list[Ask]) -> None:
            for ask in requests:
                headers = {"authorization": f"Bearer key-{ask.tenant}"}
                response = await client.post(ask.path, json=ask.body, headers=headers)
                response.raise_for_status()
                sent(ask)

        await asyncio.gather(*(one_tenant(requests) for requests in asks()))
