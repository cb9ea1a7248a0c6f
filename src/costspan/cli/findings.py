"""What `doctor` looks for in the books: its lists, then one pass over the events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from costspan.cli.counted import of_counters, of_gaps
from costspan.cli.finding import Finding, Severity, most
from costspan.cli.intents import Intents
from costspan.cli.moments import when
from costspan.core.decide.decision import UNATTRIBUTED
from costspan.core.join.precedence import SWEPT
from costspan.core.money import format_usd
from costspan.core.policy import ahead_of_clock
from costspan.core.read.books import Books
from costspan.core.read.reasons import Reasons
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger


class Census:
    """What one pass over the events counts."""

    def __init__(self, ledger: Ledger, now_ns: int) -> None:
        self._reasons = Reasons(ledger)
        self.events = 0
        self.intents = Intents(now_ns)
        self.unpriced: Counter[str] = Counter()
        self.unmeasured: Counter[str] = Counter()
        self.no_usage: Counter[str] = Counter()
        self.hidden_unknown: Counter[str] = Counter()
        self.hidden_attempts = 0
        self.flags: Counter[str] = Counter()
        self.refused_tenants: Counter[str] = Counter()
        self.unattributed = 0
        self.unattributed_pico = 0
        self._why: dict[tuple[str, str], str] = {}

    def count(self, each: Settled) -> None:
        """Count one event."""
        self.events += 1
        facts = each.event.facts
        self._flags(each)
        if each.decision is None:
            self.intents.count_open(each)
            return
        model = facts.executed_model or facts.requested_model or "no model"
        if (facts.kind or "model") == "model":
            if facts.attempts_hidden is None:
                self.hidden_unknown[model] += 1
            self.hidden_attempts += facts.attempts_hidden or 0
        if each.event.is_swept:
            self.intents.count_swept(each)
        if each.decision.cost is None:
            if facts.usage:
                self.unpriced[model] += 1
                self._remember("unpriced", model, each)
            elif "invalid_usage" in facts.flags:
                pass  # a finding of its own: it was reported, and refused
            elif each.event.is_swept:
                pass  # another
            elif each.event.outcome == "ok":
                self.no_usage[model] += 1
            else:
                self.unmeasured[model] += 1
                self._remember("unmeasured", model, each)
        if each.decision.is_money:
            nobodys = [s.cost for s in each.decision.shares if s.owner == UNATTRIBUTED]
            if nobodys or each.decision.owner == UNATTRIBUTED:
                self.unattributed += 1
                self.unattributed_pico += sum(nobodys)

    def why(self, table: str, model: str) -> str:
        """The reason of the first such event of a model."""
        return self._why[table, model]

    def _flags(self, each: Settled) -> None:
        decided = () if each.decision is None else each.decision.flags
        said = {f for f in decided if f == "charged_above_cost" or f.startswith("invalid:")}
        for flag in said.union(each.event.facts.flags):
            name, _, rest = flag.partition(":")
            if name == "tenant":  # the digest of the id that was refused
                self.refused_tenants[rest] += 1
            elif name == "invalid":
                self.flags[f"invalid:{rest.partition(':')[0]}"] += 1
            else:
                self.flags[flag if name == "unknown" else name] += 1

    def _remember(self, table: str, model: str, each: Settled) -> None:
        if (table, model) not in self._why:
            self._why[table, model] = self._reasons.no_price(each)


def of_books(books: Books, now_ns: int, tell: Callable[[int], None]) -> Iterator[Finding]:
    """Every finding that takes a look at each event, the worst first within its subject."""
    if not books.is_balanced():
        yield Finding(
            severity="error",
            check="not_balanced",
            count=1,
            what="lines, postings and decisions do not agree",
            do="do not bill from these books; keep the file and run costspan rebuild",
        )
    census = Census(books.ledger, now_ns)
    for each in books.ledger.events():
        census.count(each)
        if census.events % 1000 == 0:
            tell(census.events)
    yield from _of_unknown_cost(census)
    yield from census.intents.findings(books.ledger)
    yield from _of_owners(census)
    yield from _of_capture(census)


def of_ledger(
    ledger: Ledger, counts: Mapping[str, int], undrained: bool, now_ns: int
) -> Iterator[Finding]:
    """Every finding that the ledger's own lists give, whatever its size."""
    yield from of_counters(ledger)
    yield from of_gaps(ledger, undrained)
    yield from _of_policies(ledger, now_ns)
    texts: dict[str, tuple[Severity, str, str]] = {
        "conflict": (
            "error",
            "records came twice under one number with different content",
            "two processes share a writer id, or an import was edited; both versions are kept",
        ),
        "identity_conflict": (
            "error",
            "records name a second authenticated tenant for an event; they were refused",
            "find who mixes two tenants' work in one call: costspan explain EVENT names the record",
        ),
        "unmatched": (
            "warning",
            "records name only a response id that several events carry; they post nothing",
            "let their instrument name the attempt or the operation too",
        ),
        "unmatched_downstream": (
            "warning",
            "client records of calls to a metered gateway found no call there",
            "drain the gateway's spool too, or take its URL out of `gateways`: else it is metered"
            " nowhere",
        ),
    }
    for kind, (severity, what, do) in texts.items():
        if counts[kind]:
            yield Finding(severity=severity, check=kind, count=counts[kind], what=what, do=do)


def _of_policies(ledger: Ledger, now_ns: int) -> Iterator[Finding]:
    policies = ledger.reading().policies()
    for each in ahead_of_clock(policies, now_ns):
        yield Finding(
            severity="warning",
            check="policy_ahead",
            count=1,
            what=f"other rules or prices are to hold from {when(each.effective_from)} on: a machine"
            " that drains has settings of its own, and a clock that runs ahead",
            do="set its clock; then drain once where the settings are right (--prices, --rules,"
            " --charges): they hold from then on, too",
        )
    if len(policies) > 1:
        since = ", ".join(when(each.effective_from) for each in policies[1:][-4:])
        yield Finding(
            severity="note",
            check="policy_changes",
            count=len(policies) - 1,
            what=f"the rules or prices were changed for events from then on: {since}",
            do="costspan rules list --ledger-rules shows every policy; what began before keeps"
            " its own",
        )


def _of_unknown_cost(census: Census) -> Iterator[Finding]:
    for model, many in census.unpriced.most_common():
        yield Finding(
            severity="warning",
            check="unpriced",
            count=many,
            what=f"{model}: {census.why('unpriced', model)}",
            do="put its price into a contract file (prices): it holds for events from then on;"
            " these stay unknown until they are restated. costspan prices why MODEL",
        )
    for model, many in census.no_usage.most_common():
        yield Finding(
            severity="warning",
            check="no_usage",
            count=many,
            what=f"{model}: answered, but no usage was reported (streaming without usage?)",
            do='ask for it: stream_options={"include_usage": True}, or stream_usage=True',
        )
    for model, many in census.unmeasured.most_common():
        yield Finding(
            severity="warning",
            check="unmeasured",
            count=many,
            what=f"{model}: {census.why('unmeasured', model)}",
            do="compare with the provider's invoice; costspan report --unpriced lists them",
        )


def _of_owners(census: Census) -> Iterator[Finding]:
    if census.unattributed:
        usd = format_usd(census.unattributed_pico)
        yield Finding(
            severity="warning",
            check="unattributed",
            count=census.unattributed,
            what=f"events, or shares of them, without owner: {usd} USD",
            do="costspan report --unattributed says why, event by event",
        )
    if census.flags["tenant_invalid"]:
        yield Finding(
            severity="warning",
            check="tenant_invalid",
            count=census.flags["tenant_invalid"],
            what="a tenant id was refused: 1 to 128 printable characters, no @ in front"
            + (f"; by hash: {most(refused)}" if (refused := census.refused_tenants) else ""),
            do="correct the ids where they are given to attribute, bind or resolve",
        )
    if census.flags["charged_above_cost"]:
        yield Finding(
            severity="note",
            check="charged_above_cost",
            count=census.flags["charged_above_cost"],
            what="tenants are charged more than it cost: a cheaper model answered than they asked",
            do="report --by flags sums them up; if it is not meant: drain with profile chargeback,"
            ' or with charge_above_cost = "capped" in [knobs] of the rule file: it holds from then',
        )


def _of_capture(census: Census) -> Iterator[Finding]:
    if census.flags["invalid_usage"]:
        yield Finding(
            severity="warning",
            check="invalid_usage",
            count=census.flags["invalid_usage"],
            what="a usage was refused, and the cost is unknown: a count that was negative,"
            " fractional or absurd",
            do="report it to whoever maintains the adapter or gateway that wrote it",
        )
    # A client's view of a gateway's call is marked so as a matter of course.
    known = {"tenant_invalid", "invalid_usage", "charged_above_cost", "downstream", SWEPT}
    others = Counter({flag: n for flag, n in census.flags.items() if flag not in known})
    invalid = Counter({flag: n for flag, n in others.items() if flag.startswith("invalid:")})
    if invalid:
        yield Finding(
            severity="warning",
            check="invalid_field",
            count=sum(invalid.values()),
            what=f"values were no such thing and were left out, as if not said: {most(invalid)}",
            do="correct them where they are given; costspan report --by flags finds the events",
        )
    others -= invalid
    if others:
        yield Finding(
            severity="note",
            check="flags",
            count=sum(others.values()),
            what=f"events are flagged: {most(others)}",
            do="costspan explain EVENT shows the flags; report --by flags groups by them",
        )
    if census.hidden_attempts:
        yield Finding(
            severity="warning",
            check="hidden_retries",
            count=census.hidden_attempts,
            what="attempts were made below the callbacks, and nobody metered them",
            do="set max_retries=0 on the client and let the router or the agent retry",
        )
    if unknown := census.hidden_unknown:
        yield Finding(
            severity="note",
            check="retries_unseen",
            count=sum(unknown.values()),
            what=f"model calls whose client may retry unseen by callbacks: {most(unknown)}",
            do="set max_retries=0 on the client, so that every attempt is one that is seen",
        )
