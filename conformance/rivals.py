"""The scenario that the rivals were tried on, as a script any host can play.

Per tenant: a planner that calls tools, an answer that the provider refuses once, a model that stays
down and another that stands in, a prompt with a cached prefix, a background summary on a pool that
was warm before, and the platform's safety check. Tenant B sends twice tenant A's tokens. The text
in double brackets is for the loopback provider; costspan never reads it.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import costspan

PICO_PER_MICRO = 10**6
TENANTS = {"acme": 1, "globex": 2}


class Step(NamedTuple):
    """One call: the model asked for, tokens at tenant A, what happens, and who must bear it."""

    purpose: str
    model: str
    tokens_in: int
    tokens_out: int
    bucket: str
    micro_usd: int
    more: str = ""


# Worked out by hand from the provider's list: gpt-4o 2.50/10.00 (cached 1.25), mini 0.15/0.60.
PLANNER = Step(
    "planner",
    "gpt-4o",
    1000,
    200,
    "agent",
    4500,
    """tool='search:{"q": 1}' tool='fetch:{"q": 2}'""",
)
ANSWER = Step("answer", "gpt-4o", 1200, 500, "direct", 8000, "status=503 times=1")
FALLBACK = Step("fallback", "gpt-4o", 2000, 500, "direct", 600)
FOLLOW_UP = Step("follow-up", "gpt-4o", 1500, 100, "direct", 3470)
SUMMARY = Step("summary", "gpt-4o-mini", 1800, 500, "agent", 570)
SAFETY = Step("safety", "gpt-4o-mini", 500, 10, "platform", 81)
STEPS = (PLANNER, ANSWER, FALLBACK, FOLLOW_UP, SUMMARY, SAFETY)
BILLED_PER_TENANT = len(STEPS)


class Host(Protocol):
    """A way to ask a model: `falls_back` lets gpt-4o-mini stand in."""

    tries_of_gpt_4o: int
    """How many requests the host sends before it gives gpt-4o up."""

    def ask(self, model: str, text: str, falls_back: bool = False) -> None:
        """Ask and wait."""
        ...

    async def aask(self, model: str, text: str, falls_back: bool = False) -> None:
        """Ask on the event loop."""
        ...


def prompt(step: Step, tenant: str, host: Host) -> str:
    """What is sent: the directive for the provider, and nothing that tells us the tenant."""
    times = TENANTS[tenant]
    words = [
        f"tenant={tenant} purpose={step.purpose} case={tenant}",
        f"in={step.tokens_in * times} out={step.tokens_out * times}",
        step.more,
    ]
    if step is FOLLOW_UP:
        words.append(f"cached={1024 * times}")
    if step is FALLBACK:
        words.append(f"status=503 times={host.tries_of_gpt_4o}")
    return f"[[{' '.join(word for word in words if word)}]] {step.purpose}"


def play(host: Host) -> None:
    """Both tenants at once, each in a thread; the summaries on a pool that was warm before."""
    pool = ThreadPoolExecutor(2)
    list(pool.map(str, range(2)))
    both = threading.Barrier(len(TENANTS), timeout=60)

    def one(tenant: str) -> None:
        with costspan.attribute(tenant, session=f"{tenant}-1"):
            both.wait()
            with costspan.work("background"):
                summary = pool.submit(
                    costspan.carry(host.ask), SUMMARY.model, prompt(SUMMARY, tenant, host)
                )
            with costspan.work("safety"):
                host.ask(SAFETY.model, prompt(SAFETY, tenant, host))
            for step in (PLANNER, ANSWER, FALLBACK, FOLLOW_UP):
                host.ask(step.model, prompt(step, tenant, host), falls_back=step is FALLBACK)
        summary.result(timeout=60)

    with ThreadPoolExecutor(len(TENANTS)) as tenants:
        list(tenants.map(one, TENANTS))
    pool.shutdown()


async def play_async(host: Host) -> None:
    """Both tenants at once on one loop; the summaries in tasks that outlive their scope."""

    async def one(tenant: str) -> asyncio.Task[None]:
        with costspan.attribute(tenant, session=f"{tenant}-1"):
            with costspan.work("background"):
                summary = asyncio.create_task(
                    host.aask(SUMMARY.model, prompt(SUMMARY, tenant, host))
                )
            with costspan.work("safety"):
                await host.aask(SAFETY.model, prompt(SAFETY, tenant, host))
            for step in (PLANNER, ANSWER, FALLBACK, FOLLOW_UP):
                await host.aask(step.model, prompt(step, tenant, host), falls_back=step is FALLBACK)
        return summary

    for outlived in await asyncio.gather(*(one(tenant) for tenant in TENANTS)):
        await outlived
