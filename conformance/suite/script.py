"""Scenario files: what a host is to do, and the books it must leave.

A file holds scenarios of one subject. A scenario says what it proves (rules and invariants of the
design), the steps of its script, and the expected books of ONE tenant. It is played for all its
tenants at once: `tenants` gives each a factor by which all its tokens and flat costs are
multiplied, so that an amount on the wrong tenant can never cancel out. `scenarios/schema.json` is
the format for other languages, made from these classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any, Literal, Union

import msgspec

Api = Literal["chat", "embeddings", "responses", "messages"]
Mode = Literal["sync", "async"]
How = Literal["abandon", "close", "cancel"]

TENANTS: Mapping[str, int] = {"acme": 1, "globex": 2}
"""Who plays where a scenario does not say: two, interleaved, the second with twice the tokens."""


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a scenario: what nobody knows is refused."""


class Leave(Strict, frozen=True):
    """The consumer of a stream leaves after so many pieces of content.

    `abandon` stops reading and drops the stream, `close` closes it, `cancel` cancels the task.
    """

    after: int = 1
    how: How = "abandon"


class Call(Strict, frozen=True, tag="call", tag_field="do"):
    """One request for a model, as the application makes it.

    `says` is what the provider does, in the words of its directives (`in`, `out`, `cached`,
    `status`, `times`, `tool`, …). `retries` is how often the host tries again, by itself or
    (`retried_by`) in the SDK under it, unseen; `fallback` a model that may stand in; `repeat` makes
    the same call so often, one after the other. `cancel` cancels it once the provider has the
    request, `hang_up` closes its connection to a gateway then, which finishes all the same;
    `timeout` is in seconds. `verdict` is a guardrail's, given after the reply: the user never gets
    it. `rerouted` is the model to which a gateway's policy sends the request; `guarded` what a
    gateway's guardrail does: `refused`, before anything is sent, or `blocked`, when the answer is
    there. `raises` says that the caller sees an exception.
    `then` is what the provider does when the same is asked again, try by try.
    """

    model: str
    says: dict[str, Any] = {}
    then: tuple[dict[str, Any], ...] = ()
    api: Api = "chat"
    label: str = "call"
    stream: bool = False
    asks_usage: bool = True
    leave: Leave | None = None
    cancel: bool = False
    hang_up: bool = False
    timeout: float | None = None
    retries: int = 0
    retried_by: Literal["host", "sdk"] = "host"
    fallback: str | None = None
    no_fallbacks: bool = False
    route: str | None = None
    structured: str | None = None
    n: int = 1
    tier: str | None = None
    cache: Literal["exact", "semantic"] | None = None
    repeat: int = 1
    mock: str | None = None
    claims: Literal["metadata", "headers"] | None = None
    verdict: Literal["blocked"] | None = None
    rerouted: str | None = None
    guarded: Literal["refused", "blocked"] | None = None
    raises: bool = False


class Tool(Strict, frozen=True):
    """What an agent's tool costs a run (USD, decimal string) and what it does inside.

    One that `raises` fails at the end; the model is told so, and the agent goes on.
    """

    cost: str | None = None
    steps: tuple[Step, ...] = ()
    raises: bool = False


class Agent(Strict, frozen=True, tag="agent", tag_field="do"):
    """A loop: the model is asked until it answers without calling a tool.

    `turns` are what the provider does at each turn, in the words of its directives; a turn with
    `tool` calls the tools it names. With `structured` the answer is forced into the arguments of
    a function of that name, which the last turn calls. `summarize` is what the provider says to
    the summary of the history, which the host asks for before the second turn.
    """

    model: str
    turns: tuple[dict[str, Any], ...]
    name: str = "agent"
    tools: dict[str, Tool] = {}
    stream: bool = False
    retries: int = 0
    retried_by: Literal["policy", "middleware"] = "policy"
    fallback: str | None = None
    structured: str | None = None
    summarize: dict[str, Any] | None = None


class Work(Strict, frozen=True, tag="work", tag_field="do"):
    """Work of a named cause, said explicitly: safety, router, index, eval, memory, batch, …."""

    cause: str
    steps: tuple[Step, ...]
    initiator: Literal["user", "agent", "platform"] | None = None


class ToolStep(Strict, frozen=True, tag="tool", tag_field="do"):
    """A tool that the application runs itself, at a flat cost in USD, and what it does inside."""

    name: str
    steps: tuple[Step, ...] = ()
    cost: str | None = None
    raises: bool = False


class Retrieval(Strict, frozen=True, tag="retrieval", tag_field="do"):
    """A retriever of the host's framework, and what it asks inside."""

    steps: tuple[Step, ...]


class Together(Strict, frozen=True, tag="together", tag_field="do"):
    """Branches side by side."""

    branches: tuple[tuple[Step, ...], ...]


class Background(Strict, frozen=True, tag="background", tag_field="do"):
    """Steps handed to a pool that was warm before the request, or to a task that outlives it."""

    steps: tuple[Step, ...]


class Owner(Strict, frozen=True, tag="owner", tag_field="do"):
    """Another owner named by the application inside: a tenant, a session, nobody.

    `$tenant` in either is the playing tenant. Where it is `refused`, whoever was authenticated
    stays the owner: in-process code does not outrank a principal.
    """

    steps: tuple[Step, ...]
    tenant: str | None = None
    session: str | None = None
    detached: bool = False
    refused: bool = False


class Remote(Strict, frozen=True, tag="remote", tag_field="do"):
    """Steps done by another service, which gets the signed context over HTTP.

    The calling service is authenticated there as one that may act for the tenants, and has none of
    its own. With `replayed_by` the captured context is presented by that other tenant instead.
    `arrives` says what became of it on the way, which leaves the steps without an owner.
    """

    steps: tuple[Step, ...]
    replayed_by: str | None = None
    arrives: Literal["expired", "tampered", "misdirected"] | None = None


class Batch(Strict, frozen=True, tag="batch", tag_field="do"):
    """A batch job at the provider: the lines' `says` by tenant.

    It is polled to its end, and until `polls` polls found it ended. A line of tenant `$tenant` is
    the playing tenant's own.
    """

    model: str
    lines: tuple[tuple[str, dict[str, Any]], ...]
    polls: int = 1


Step = Union[  # noqa: UP007  # msgspec reads the tags of this union; `|` cannot refer forward
    Call,
    Agent,
    Work,
    ToolStep,
    Retrieval,
    Together,
    Background,
    Owner,
    Remote,
    Batch,
]


class Amounts(Strict, frozen=True):
    """USD as decimal strings; the charge is the cost unless it is said."""

    cost: str
    charge: str | None = None


class Expected(Strict, frozen=True):
    """The books of one tenant at factor 1.

    `ledger` is owner → bucket → amounts, in which `$tenant` is the playing tenant and the rows of
    everybody else add up over all tenants; lines of nothing may be left out. Only costs of
    reported usage and flat costs count here. `priced` is how many events carry such a cost above
    zero. The others are how many events the books must show with that fate; `lost` is how many
    requests the provider billed whose usage never reached the client, each of which must be
    visible as open, swept, unmeasured or estimated. `pools` is the platform's cost by pool and
    `sessions` the tenants' cost by session (`$tenant` in its name is the playing tenant), both
    complete where they are said; `tries` is how many events are a second or later try,
    and `claimed` how many keep what a client asserted, as bounded evidence.
    """

    ledger: dict[str, dict[str, Amounts]]
    priced: int
    unpriced: int = 0
    lost: int = 0
    hidden: int = 0
    flags: tuple[str, ...] = ()
    pools: dict[str, str] = {}
    sessions: dict[str, str] = {}
    tries: int | None = None
    claimed: int | None = None


class Scenario(Strict, frozen=True):
    """One scenario; `likely` names the cause that a failure most often has."""

    id: str
    title: str
    proves: tuple[str, ...]
    script: tuple[Step, ...]
    expected: Expected
    arith: str
    likely: str
    tenants: dict[str, int] = msgspec.field(default_factory=lambda: dict(TENANTS))
    modes: tuple[Mode, ...] = ("sync", "async")
    host: tuple[str, ...] = ()
    unpriced_models: tuple[str, ...] = ()
    profile: str = "billing"


class ScenarioFile(Strict, frozen=True):
    """Scenarios of one subject."""

    subject: str
    scenarios: tuple[Scenario, ...]


def shipped() -> list[Scenario]:
    """Every scenario of the suite, by id.

    Raises:
        msgspec.ValidationError: if a file is not of this format.
    """
    found = [
        scenario
        for _, raw in sorted(scenario_files())
        for scenario in msgspec.json.decode(raw, type=ScenarioFile).scenarios
    ]
    return sorted(found, key=lambda scenario: scenario.id)


def scenario_files() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every scenario file."""
    for entry in files("costspan.conformance").joinpath("scenarios").iterdir():
        if entry.name.endswith(".json") and entry.name != "schema.json":
            yield entry.name, entry.read_bytes()


def json_schema() -> str:
    """The published JSON Schema of a scenario file, as text."""
    schema = msgspec.json.schema(ScenarioFile)
    for defined in schema["$defs"].values():
        if "description" in defined:  # its indentation depends on the version of Python
            lines = str(defined["description"]).splitlines()
            defined["description"] = "\n".join(line.strip() for line in lines)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


def steps_in(steps: tuple[Step, ...]) -> Iterator[Step]:
    """These steps and every step inside them."""
    for step in steps:
        yield step
        inner: list[tuple[Step, ...]] = []
        if isinstance(step, Agent):
            inner = [tool.steps for tool in step.tools.values()]
        elif isinstance(step, Together):
            inner = list(step.branches)
        elif not isinstance(step, Call | Batch):
            inner = [step.steps]
        for below in inner:
            yield from steps_in(below)
