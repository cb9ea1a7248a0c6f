"""Journals drawn by chance, from a seed: the same in every place and version of Python.

What is drawn is nastier than what any host writes: shared and missing ids, cycles of parents,
sessions of two minds, evidence before and after what it speaks of, two payloads under one oid.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any, TypeVar

from costspan.conformance.ledgers.books import FEBRUARY, JANUARY, LATER, MARCH
from costspan.core.join.gateways import DOWNSTREAM
from costspan.core.journal.records import Assignment, Control, SessionOwner
from costspan.core.schema import Observation

ATTEMPTS = ("a0", "a1", "a2", "\u00e4\x00\U0001f600", "Z")
OPERATIONS = ("run:0", "run:1", "call:2")
RESPONSES = ("resp-0", "resp-1")
SPANS = ("span0", "w0:1")  # a span may be called what another one's oid is
OIDS = tuple(f"w{writer}:{seq}" for writer in (0, 1) for seq in range(1, 9))
SESSIONS = ("s0", "s1")
TENANTS = ("acme", "globex", "initech")
MODELS = ("gpt-4o", "gpt-4o-2024-08-06", "gpt-4o-mini", "odd", "nobody-knows")
PARENTS = (*ATTEMPTS * 4, *OPERATIONS * 2, *SPANS, *OIDS[:4], "missing")

Batch = list[Observation | Control]
T = TypeVar("T")


class _Draw:
    """One journal's chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def some(self, *values: T) -> T:
        """One of these."""
        return values[self.chance.randrange(len(values))]

    def said(self, required: dict[str, Any], **optional: Any) -> dict[str, Any]:
        """Some fields, and perhaps others."""
        return required | {
            name: each for name, each in optional.items() if self.chance.random() < 0.5
        }

    def operations(self) -> tuple[str, ...]:
        """One operation or two."""
        return tuple(self.chance.sample(OPERATIONS, self.some(1, 2)))

    def identity(self) -> dict[str, Any]:
        """What an observation speaks of."""
        attempt, response = self.some(*ATTEMPTS), self.some(*RESPONSES)
        operations, span = self.operations(), self.some(*SPANS)
        client = {"flags": (DOWNSTREAM,)}
        return self.some(
            self.said({"attempt_id": attempt}, span_id=span),
            {"attempt_id": attempt, "operation_ids": operations},
            self.said({"attempt_id": attempt, "response_id": response}, operation_ids=operations),
            self.said({"operation_ids": operations}, response_id=response, span_id=span),
            self.said({"response_id": response}, span_id=span),
            self.said(
                client, attempt_id=attempt, operation_ids=operations, response_id=response
            ),
            self.said({**client, "attempt_id": attempt}, operation_ids=operations),
            {"span_id": span},
        )  # fmt: skip

    def owner(self) -> dict[str, Any]:
        """Whose it is, and how that is known."""
        tenant, session = self.some(*TENANTS), self.some(*SESSIONS)
        parent, origin = self.some(*PARENTS), self.some("ours", "signed", "caller")
        source = self.some("principal", "principal", "signed", "assignment")
        return self.some(
            {},
            self.said({"tenant": tenant, "tenant_source": self.some("context", "metadata")}),
            self.said({"tenant": tenant, "tenant_source": source, "session": session}),
            self.said({"session": session}, session_origin=origin),
            self.said({"parent": parent}, parent_origin=origin, session=session),
            {"parent": parent, "tenant": tenant},
            {"members": {each: self.chance.randrange(50) for each in (*TENANTS, "@unattributed")}},
        )  # fmt: skip

    def usage(self) -> dict[str, int]:
        """Tokens, few or many."""
        names = self.chance.sample(("input", "output", "cache_read"), self.some(1, 2, 3))
        return {name: self.chance.randrange(self.some(10, 200_000, 10**7)) for name in names}

    def result(self) -> dict[str, Any]:
        """What came of it."""
        model, at = self.some(*MODELS), self.some(JANUARY, FEBRUARY, MARCH)
        plain = {"provider_result": "ok", "executed_model": "gpt-4o-mini", "usage": self.usage()}
        return self.some(
            self.said(plain, started_at=at, requested_model="gpt-4o-mini"),
            self.said(plain, kind=self.some("model", "tool"), started_at=at),
            self.said(
                {"requested_model": model, "executed_model": model, "usage": self.usage()},
                usage_source=self.some("provider", "estimated", "missing"),
                provider_result=self.some("ok", "failed"),
                fault=self.some("provider", "platform", "agent", "user"),
                tier=self.some("default", "batch"),
                recorded_at=at, ended_at=self.some(FEBRUARY, MARCH),
            ),
            self.said(
                {"delivery": self.some("delivered", "blocked", "cancelled_by_user")},
                provider_result=self.some("ok", "unknown"), delivered_usage=self.usage(),
            ),
            self.said(
                {"flat_cost": self.some("0", "0.01", "3.000000000001", "8999999.9")},
                cache=self.some("miss", "exact", "semantic"), avoided_cost="0.5",
                provider_billed=self.some(True, False), started_at=at,
            ),
            {},
        )  # fmt: skip

    def work(self) -> dict[str, Any]:
        """What it was for."""
        return self.some(
            {},
            self.said(
                {}, cause=self.some("primary", "step", "tool", "batch", "safety", "index"),
                cause_source=self.some("explicit", "structure", "inferred"),
                initiator=self.some("user", "agent", "platform"),
                shared=self.some(True, False), policy_owner=self.some("platform", "tenant"),
                client_claims=self.some({"tenant": "globex"}, {"cause": "safety"}),
            ),
            self.said(
                {}, kind=self.some("model", "tool", "retrieval", "router", "request"),
                attempt=self.some(1, 2), retry_of=self.some(*ATTEMPTS),
                retry_reason=self.some("provider", "agent", "guardrail"),
            ),
        )  # fmt: skip

    def observation(self) -> Observation:
        """One observation: of each group of fields a plausible few are said."""
        oid = self.some(*OIDS)
        writer, seq = oid.split(":")
        fields = self.identity() | self.owner() | self.result() | self.work()
        fields |= self.said(
            {}, layer=self.some("provider", "gateway", "framework", "manual"),
            phase=self.some("start", "end"),
        )  # fmt: skip
        return Observation(oid=oid, writer=writer, seq=int(seq), **fields)

    def hand(self) -> Control:
        """What an operator says."""
        at = self.chance.randrange(1, 4)
        tenant = self.some(*TENANTS)
        if self.some(True, False):
            return SessionOwner(self.some(*SESSIONS), tenant, "ann", at)
        return Assignment(self.some(*ATTEMPTS, *OPERATIONS, *OIDS), tenant, "ann", "why", at)


def journal(seed: int, most: int = 24) -> list[Batch]:
    """Batches of records; some come more than once, the later policy at any moment."""
    draw = _Draw(seed)
    chance = draw.chance
    records: Batch = [draw.observation() for _ in range(chance.randrange(6, most))]
    records += [draw.hand() for _ in range(chance.randrange(4))]
    return arrivals([*records, LATER], seed)


def arrivals(records: Batch, seed: int) -> list[Batch]:
    """The same records in some order, some of them again, in some batches."""
    chance = random.Random(f"arrivals {seed}")
    order = [*records, *chance.choices(records, k=3)]
    chance.shuffle(order)
    cuts = sorted(chance.randrange(len(order) + 1) for _ in range(chance.randrange(6)))
    edges = [0, *cuts, len(order)]
    return [order[a:b] for a, b in pairwise(edges)]
