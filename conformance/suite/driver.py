"""What a host's driver is: the class that a third party subclasses.

A driver makes calls through its real host, as an application would: it knows nothing of the books.
It says what its host can do (`can`, of `CAPABILITIES`); what it does not claim is skipped with that
reason. Scenarios that are known to fail are named in `known_failures`, each with its reason, and
must go on failing. The smallest driver has a name, a few capabilities, and `ask`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import costspan
from costspan.conformance.provider import LoopbackProvider
from costspan.conformance.suite.script import Agent, Batch, Call, Mode, Remote

Messages = list[dict[str, Any]]
"""Messages as OpenAI's wire has them."""

CAPABILITIES: Mapping[str, str] = {
    # How the application calls.
    "sync": "calls from plain threads",
    "async": "calls on an event loop",
    "chat": "chat completions",
    "embeddings": "embeddings",
    "responses": "OpenAI's Responses API",
    "messages": "Anthropic's Messages API",
    "stream": "streamed answers",
    "unasked_usage": "streams that do not ask for usage",
    "structured": "answers forced into a function's arguments",
    "checked": "structured answers that the host refuses, and asks for again",
    "several": "several answers to one prompt (n > 1)",
    "tier": "service tiers",
    "route": "route names that are no models",
    "mock": "answers that no provider gave",
    "batch": "batch jobs",
    # What goes wrong on the way.
    "timeout": "gives up on a slow provider",
    "cancel": "calls cancelled before the reply",
    "abandon": "streams dropped by their reader",
    "close": "streams closed by their reader",
    "cancel_stream": "streams whose reader is cancelled",
    "rerouted": "a gateway whose policy sends a request to another model",
    "guarded": "a gateway whose guardrail refuses requests, or blocks answers",
    "hang_up": "callers that hang up on a gateway, which goes on",
    "host_retries": "the host tries again, attempt by attempt",
    "sdk_retries": "the SDK under the host tries again, unseen",
    "fallback": "another model stands in",
    "no_fallbacks": "an empty list of fallbacks",
    "exact_cache": "answers from an exact cache",
    "semantic_cache": "answers from a semantic cache",
    # Who it is for, and why.
    "work": "in-process code names the cause",
    "tool": "paid tools",
    "verdict": "a guardrail's verdict on an answer",
    "retrieval": "retrievers",
    "agent": "a loop of model and tools",
    "agent_policy": "an agent's retry policy",
    "agent_middleware": "an agent's retry and fallback middleware",
    "summarize": "an agent that summarises its history",
    "together": "branches side by side",
    "background": "work that outlives its request",
    "owner": "in-process code names the owner",
    "other_owner": "in-process code may name another tenant than the one that is served",
    "principal": "requests of authenticated principals, whom in-process code does not outrank",
    "remote": "another service does a part",
    "claims_metadata": "a caller that asserts things in metadata",
    "claims_headers": "a caller that asserts things in headers",
    # What is odd about the host in a scenario.
    "registered_twice": "the same callback is registered twice",
    "failing_callback": "somebody else's callback raises",
    "reused_metadata": "one metadata dict for all calls",
    "no_log": "callers that ask not to be logged",
    "loop_closes": "the event loop ends right after the last call",
    "base_http_middleware": "a BaseHTTPMiddleware in the stack",
    "bound_in_dependency": "a dependency names the owner after authentication",
    "bound_late": "the owner is named only when the work is done",
    "websocket": "calls made in a websocket",
    "streaming_response": "calls made while the response streams",
    "background_task": "calls made after the response was sent",
    "client_leaves": "the client of the request disconnects",
    "queue_worker": "a worker that outlives all requests",
    "metered_gateway": "a gateway that meters what the client sees too",
    "usage_injected": "a gateway that asks for the usage of streams itself",
    "metadata_identity": "credentials whose metadata name the tenant, and much else beside it",
    "team_identity": "credentials that name a team, and no tenant",
    "org_identity": "credentials that name an organisation, and neither team nor tenant",
    "key_identity": "credentials that have a name of their own only",
}
"""Everything a driver may claim."""

_HOST_OPTIONS = frozenset(list(CAPABILITIES)[list(CAPABILITIES).index("registered_twice") :])


class Who(NamedTuple):
    """Who a part of a script is for. `tenant` None is nobody."""

    tenant: str | None
    session: str | None = None


class ToolCall(NamedTuple):
    """A tool that a model called; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str = "{}"


class Reply(NamedTuple):
    """What a model answered; the provider's id of it, or the host's of the call, where it tells."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    response_id: str | None = None
    operation_id: str | None = None


@dataclass(frozen=True)
class Ask:
    """One call to make: what to ask, what tools to offer, and for whom.

    Attributes:
        call: The options of the call.
        messages: What is sent; the provider's directives are in it.
        tools: Names of the tools that are offered; each takes one string `q`.
        who: For hosts that authenticate. In-process hosts find the owner in costspan's context.
        piece: Call it for each piece of content of a stream. True says: the reader leaves here.
    """

    call: Call
    messages: Messages
    who: Who
    tools: tuple[str, ...] = ()
    piece: Callable[[], bool] = field(default=lambda: False)

    @property
    def prompt(self) -> str:
        """The text of the last message."""
        return str(self.messages[-1]["content"])


@dataclass(frozen=True)
class AgentAsk:
    """An agent to run: `tools` run themselves, `atools` on the event loop; each takes `q`.

    A tool that fails raises. `summary` is what the provider must be told where the host asks it for
    a summary of the history; all else is in `prompt`.
    """

    agent: Agent
    prompt: str
    summary: str
    who: Who
    tools: Mapping[str, Callable[[str], str]]
    atools: Mapping[str, Callable[[str], Awaitable[str]]]


CLAIMS: Mapping[str, Any] = {
    "tenant": "initech",
    "tenant_source": "principal",
    "session": "initech-session",
    "user": "initech-user",
    "cause": "safety",
    "cause_source": "explicit",
    "initiator": "platform",
    "shared": True,
    "policy_owner": "platform",
    "members": {"initech": 1},
    "delivery": "blocked",
    "fault": "provider",
    "provider_billed": False,
    "flat_cost": "0",
    "usage": {"input": 0},
    "cache": "exact",
}
"""Every field that moves money, as one says it who wants no bill, or sends it to somebody else."""


class Batched(NamedTuple):
    """A batch job that has ended: its id at the provider, and the tokens of each of its lines."""

    id: str
    tokens: Sequence[int]


class Driver:
    """A host that plays scripts. Subclass it; raise nothing of your own.

    Attributes:
        name: How the matrix calls it.
        can: What it claims, of `CAPABILITIES`.
        only_async: What of it the host can do on an event loop only.
        known_failures: Scenario id (or `ID-mode`) to the reason why its host cannot do it right.
        has_agents: Whether it runs agents itself; otherwise the suite plays the loop by `ask`.
    """

    name: ClassVar[str] = ""
    can: ClassVar[frozenset[str]] = frozenset()
    only_async: ClassVar[frozenset[str]] = frozenset()
    known_failures: ClassVar[Mapping[str, str]] = {}
    has_agents: ClassVar[bool] = False

    def open(self, provider: LoopbackProvider, scratch: Path) -> None:
        """Make the host ready, once; the provider's `base_url` and `url` are where it calls."""
        self.provider = provider
        self.scratch = scratch

    def close(self) -> None:
        """Take the host down again."""

    def gateways(self, host: tuple[str, ...]) -> tuple[str, ...]:
        """Base URLs that are metered themselves, where the scenario's host options ask for it."""
        return ()

    def begin(self, options: frozenset[str]) -> None:
        """Before each scenario: register costspan with the host; `options` are what it needs."""

    def end(self) -> None:
        """After each scenario: leave the host as it was found."""

    def ask(self, ask: Ask) -> Reply:
        """Make a call and wait for it."""
        raise NotImplementedError("ask() is not defined by this driver")

    async def aask(self, ask: Ask) -> Reply:
        """Make a call on the event loop."""
        raise NotImplementedError("aask() is not defined by this driver")

    def run_agent(self, ask: AgentAsk) -> None:
        """Run an agent of the host's framework (where `has_agents`)."""
        raise NotImplementedError("run_agent() is not defined by this driver")

    async def arun_agent(self, ask: AgentAsk) -> None:
        """Run an agent on the event loop."""
        raise NotImplementedError("arun_agent() is not defined by this driver")

    def retrieve(self, body: Callable[[], None]) -> None:
        """Run `body` inside a retriever of the host's framework."""
        raise NotImplementedError("retrieve() is not defined by this driver")

    async def aretrieve(self, body: Callable[[], Awaitable[None]]) -> None:
        """Run `body` inside a retriever, on the event loop."""
        raise NotImplementedError("aretrieve() is not defined by this driver")

    def together(self, bodies: Sequence[Callable[[], None]]) -> None:
        """Run `bodies` side by side and wait for all."""
        with ThreadPoolExecutor(len(bodies)) as threads:
            branches = [threads.submit(costspan.carry(body)) for body in bodies]
            for branch in branches:
                branch.result()

    async def atogether(self, bodies: Sequence[Callable[[], Awaitable[None]]]) -> None:
        """Run `bodies` side by side on the event loop and wait for all."""
        await asyncio.gather(*(body() for body in bodies))

    def serve(self, who: Who, body: Callable[[], None]) -> None:
        """Run `body` for `who`, as the host's application would: in a request of theirs."""
        with costspan.attribute(who.tenant, session=who.session):
            body()

    async def aserve(self, who: Who, body: Callable[[], Awaitable[None]]) -> None:
        """Run `body` for `who` on the event loop."""
        with costspan.attribute(who.tenant, session=who.session):
            await body()

    def later(self, body: Callable[[], None]) -> Future[None] | None:
        """Hand `body` to what the host has for work after its requests; tells when it is done.

        None where it has nothing of its own: the suite takes a pool that was warm before.
        """
        return None

    def alater(self, body: Callable[[], Awaitable[None]]) -> Future[None] | None:
        """Hand `body` over on the event loop; where there is nothing, the suite takes a task."""
        return None

    def leave(self, asking: asyncio.Task[Any]) -> None:
        """The one who asked leaves: which cancels the call's task, unless the host knows better."""
        asking.cancel()

    def remote(self, step: Remote, who: Who, body: Callable[[], None]) -> None:
        """Run `body` for `who` in another service that got the signed context of here."""
        raise NotImplementedError("remote() is not defined by this driver")

    async def aremote(self, step: Remote, who: Who, body: Callable[[], Awaitable[None]]) -> None:
        """Run `body` in another service, on its event loop."""
        raise NotImplementedError("aremote() is not defined by this driver")

    def batch(self, batch: Batch, lines: list[Messages]) -> Batched:
        """Send a batch job of these lines and poll it to its end, and after."""
        raise NotImplementedError("batch() is not defined by this driver")

    async def abatch(self, batch: Batch, lines: list[Messages]) -> Batched:
        """Send a batch job and poll it, on the event loop."""
        raise NotImplementedError("abatch() is not defined by this driver")

    def finish(self) -> None:
        """Wait until the host has handed over its last callbacks."""

    async def afinish(self) -> None:
        """Wait for the last callbacks, on the event loop that made the calls."""

    def spools(self) -> list[Path]:
        """Spools of other processes of this host, complete once this returns."""
        return []


def missing(driver: Driver, needed: frozenset[str]) -> list[str]:
    """What of `needed` the driver does not claim, in words."""
    can = frozenset(driver.can)
    if "sync" in needed:
        can -= frozenset(driver.only_async)
    return [f"{each} ({CAPABILITIES[each]})" for each in sorted(needed - can)]


def option_names(host: tuple[str, ...], mode: Mode) -> frozenset[str]:
    """The capabilities that a scenario's host options and mode ask for.

    Raises:
        ValueError: for an option that nobody knows.
    """
    if unknown := set(host) - _HOST_OPTIONS:
        raise ValueError(f"no such host option: {', '.join(sorted(unknown))}")
    return frozenset((*host, mode))
