"""Scenario files: deliveries in the wire format, and the books they must give.

The format is that of the golden files: named price books, aliases, and scenarios with
`deliveries`, trusted `sessions`, `adjustments` and `expected` books. A scenario is settled by the
real settlement into a real ledger: one in memory, or an empty one that is given.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec

from costspan.core import clean
from costspan.core.decide import load_profile
from costspan.core.journal.records import Policy, SessionOwner
from costspan.core.money import format_usd, parse_usd
from costspan.core.periods import NO_PERIOD
from costspan.core.prices import PriceBook
from costspan.core.schema import FIELDS, Observation
from costspan.core.settle import settle
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger, open_url

SCHEMA = "costspan-scenarios/1"
DEFAULT_BOOK = "v1"
_DELIVERED = ("blocked", "cancelled_by_user", "cancelled_by_platform")


class ScenarioError(ValueError):
    """A scenario file that cannot be played; the text says where and why."""


class ScenarioFile:
    """A file of scenarios that share price books."""

    def __init__(self, plain: Mapping[str, Any], name: str = "scenario file") -> None:
        if plain.get("schema", SCHEMA) != SCHEMA:
            raise ScenarioError(f"{name}: schema is {plain.get('schema')!r}, not {SCHEMA!r}")
        aliases = _named(plain, "aliases")
        self.books = [
            PriceBook.from_table(book, table, {k: v for k, v in aliases.items() if v in table})
            for book, table in _named(plain, "price_books").items()
        ]
        names = [book.id for book in self.books]
        self.default_book = DEFAULT_BOOK if DEFAULT_BOOK in names or not names else names[0]
        self.scenarios: list[dict[str, Any]] = list(plain.get("scenarios") or ())
        self.name = name

    @classmethod
    def load(cls, path: Path) -> ScenarioFile:
        """Read a file.

        Raises:
            ScenarioError: if it is no scenario file.
        """
        try:
            plain = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ScenarioError(f"{path}: {error}") from error
        if not isinstance(plain, dict):
            raise ScenarioError(f"{path}: not a JSON object")
        return cls(cast("dict[str, Any]", plain), str(path))

    def play(self, scenario: Mapping[str, Any], batches: int = 1) -> dict[str, Any]:
        """The books of one scenario, in the format of its `expected` block.

        Args:
            scenario: One of `scenarios`.
            batches: Settle the deliveries in this many batches.
        """
        return self.books_of(scenario, self.arrivals(scenario, batches))

    def arrivals(
        self, scenario: Mapping[str, Any], batches: int = 1, shuffle: int | None = None
    ) -> list[Sequence[Observation]]:
        """The deliveries of a scenario, in so many batches.

        Args:
            scenario: One of `scenarios`.
            batches: How many.
            shuffle: The seed of another order, in which some come twice.
        """
        deliveries = self.deliveries(scenario)
        if shuffle is not None:
            shuffler = random.Random(shuffle)
            deliveries += shuffler.choices(deliveries, k=len(deliveries) // 2)
            shuffler.shuffle(deliveries)
        size = max(1, -(-len(deliveries) // max(1, batches)))
        return [deliveries[at : at + size] for at in range(0, len(deliveries), size)]

    def deliveries(self, scenario: Mapping[str, Any]) -> list[Observation]:
        """The observations of a scenario, in its order.

        The format's books have no order of precedence: the default one is in force for whatever
        no delivery about the same call names another for.
        """
        plain = [observation_of(each) for each in scenario.get("deliveries") or ()]
        named = {name for each in plain if each.price_book is not None for name in _about(each)}
        return [
            each
            if each.price_book is not None or named.intersection(_about(each))
            else msgspec.structs.replace(each, price_book=self.default_book)
            for each in plain
        ]

    def books_of(
        self,
        scenario: Mapping[str, Any],
        batches: Sequence[Sequence[Observation]],
        ledger: Ledger | None = None,
    ) -> dict[str, Any]:
        """The books of a scenario whose observations arrive in these batches.

        Args:
            scenario: One of `scenarios`.
            batches: Its deliveries, as they arrive.
            ledger: An empty ledger to settle into (default: one in memory).
        """
        if ledger is not None:
            self.settle_into(ledger, scenario, batches)
            return _printed(ledger, scenario)
        with closing(open_url("sqlite:///:memory:", create=True)) as opened:
            return self.books_of(scenario, batches, opened)

    def settle_into(
        self,
        ledger: Ledger,
        scenario: Mapping[str, Any],
        batches: Sequence[Sequence[Observation]],
    ) -> None:
        """Settle a scenario into an empty ledger: its policy, its directory, these batches."""
        with ledger.settling(0) as settlement:
            rules = load_profile(scenario.get("profile", "billing"))
            settlement.keep_rule_set(rules)
            for book in self.books:
                settlement.keep_price_book(book)
            hashes = tuple(book.sha256 for book in self.books)
            settle(settlement, [], [Policy(rules.sha256, hashes, 0, "scenario")])
            directory = [
                SessionOwner(session, tenant, "scenario", 0)
                for session, tenant in _named(scenario, "sessions").items()
            ]
            settle(settlement, [], directory)
        for batch in batches:
            with ledger.settling(0) as settlement:
                settle(settlement, batch, gateways=tuple(scenario.get("gateways") or ()))


def observation_of(delivery: Mapping[str, Any]) -> Observation:
    """The observation of a delivery; what the format says more tersely is spelled out."""
    fields = {name: value for name, value in delivery.items() if name in FIELDS}
    if "id" in delivery:
        fields["oid"] = fields["attempt_id"] = delivery["id"]
    if (outcome := delivery.get("outcome")) is not None:
        if outcome in _DELIVERED:
            fields.update(provider_result="ok", delivery=outcome)
        else:
            fields["provider_result"] = outcome
    for ours, theirs in (("started_at", "ts"), ("recorded_at", "arrived"), ("ended_at", "ended")):
        moment = delivery.get(ours, delivery.get(theirs))
        if moment is not None:
            fields[ours] = _nanoseconds(moment) if isinstance(moment, str) else moment
    return clean.observation(fields)


def _named(plain: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A table of a file; empty where it is absent or null."""
    return cast("dict[str, Any]", plain.get(key) or {})


def _about(seen: Observation) -> set[str]:
    """The names of the call an observation speaks of."""
    return {name for name in (seen.attempt_id, *seen.operation_ids) if name is not None}


def _nanoseconds(text: str) -> int:
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    whole = moment.replace(microsecond=0)
    if whole.tzinfo is None:
        whole = whole.replace(tzinfo=UTC)
    return int(whole.timestamp()) * 10**9 + moment.microsecond * 1000


def _printed(ledger: Ledger, scenario: Mapping[str, Any]) -> dict[str, Any]:
    events = {
        each.event.id: _printed_event(each) for each in ledger.events() if each.decision is not None
    }
    lines: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    by_period: dict[str, int] = defaultdict(int)
    for roll_up in ledger.roll_ups():
        line = lines[roll_up.line.owner, roll_up.line.bucket]
        line[0] += roll_up.cost
        line[1] += roll_up.charge
        by_period[roll_up.posted_period] += roll_up.cost
    for adjustment in scenario.get("adjustments") or ():
        for owner, bucket, side, amount in adjustment["postings"]:
            pico = parse_usd(amount)
            lines[owner, bucket][0 if side == "cost" else 1] += pico
            if side == "cost" and "period" in adjustment:
                by_period[adjustment["period"]] += pico
    cost = sum(line[0] for line in lines.values())
    charge = sum(line[1] for line in lines.values())
    counts = ledger.counts()
    printed: dict[str, Any] = {
        "id": scenario["id"],
        "events": events,
        "ledger": _printed_ledger(lines),
        "totals": {
            "cost": format_usd(cost),
            "charge": format_usd(charge),
            "absorbed": format_usd(cost - charge),
            "unpriced_events": counts["unpriced"] + counts["unmeasured"],
            "open": counts["open"],
            "unmatched": counts["unmatched"],
            "unmatched_downstream": counts["unmatched_downstream"],
            "identity_conflict": counts["identity_conflict"],
            "conflict": counts["conflict"],
        },
    }
    if by_period.keys() - {NO_PERIOD}:  # where the deliveries say when
        printed["by_period"] = {p: format_usd(amount) for p, amount in sorted(by_period.items())}
    return printed


def _printed_ledger(lines: Mapping[tuple[str, str], Sequence[int]]) -> dict[str, Any]:
    ledger: dict[str, Any] = {}
    for (owner, bucket), (cost, charge) in sorted(lines.items()):
        amounts = {"cost": format_usd(cost), "charge": format_usd(charge)}
        ledger.setdefault(owner, {})[bucket] = amounts
    return ledger


def _printed_event(each: Settled) -> dict[str, Any]:
    decision = each.decision
    assert decision is not None
    return {
        "cost": _amount(decision.cost),
        "driver_tenant": decision.driver,
        "owners": [
            {"owner": share.owner, "bucket": share.bucket, "cost": format_usd(share.cost)}
            for share in decision.shares
        ],
        "charges": [
            {"owner": share.owner, "bucket": share.bucket, "charge": format_usd(share.charge)}
            for share in decision.shares
            if share.charge
        ],
        "absorbed": _amount(decision.absorbed),
        "rules": list(decision.rules),
    }


def _amount(pico: int | None) -> str | None:
    return None if pico is None else format_usd(pico)


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Where the books differ, a line each; of `totals` only the expected keys are compared."""
    wrong: list[str] = []
    for block in ("events", "ledger", "totals", "by_period"):
        if block not in expected:
            continue
        wanted, got = expected[block], found.get(block, {})
        names = wanted if block == "totals" else sorted({*wanted, *got})
        for name in names:
            if wanted.get(name) != got.get(name):
                wrong.append(
                    f"{block}[{name}]: expected {json.dumps(wanted.get(name))},"
                    f" found {json.dumps(got.get(name))}"
                )
    return wrong
