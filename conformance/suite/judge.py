"""Compares what a play left in the books with what the scenario and the provider say.

Three witnesses must agree: the expected books, worked out by hand; the provider's truth ledger,
tenant by tenant; and its invoice. What differs is said in words, with the likely cause.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from costspan.conformance.provider.invoice import invoice_lines
from costspan.conformance.provider.truth import Row
from costspan.conformance.suite.player import Played
from costspan.conformance.suite.script import Scenario
from costspan.conformance.suite.sound import unsound
from costspan.core.money import format_usd, parse_usd
from costspan.core.read.books import Books

LISTED = frozenset({"identity_conflict", "conflict", "unmatched", "unmatched_downstream"})
"""Lists of observations that no scenario leaves behind."""

CLAIM_CHARS_MAX = 1024
"""So much of one text that a client asserts is kept."""

_UNHEARD = frozenset({"open", "unmeasured", "estimated"})

Line = tuple[str, str]
Ledger = dict[Line, tuple[int, int]]


class Found(NamedTuple):
    """What is in the books: pico-USD by (owner, bucket), and how many events of each fate.

    `pools` is the platform's cost by pool, `sessions` the tenants' by session; `tries` counts the
    events that are a second or later try, `claimed` those that keep what a client asserted,
    `unheard`, by who caused them, those whose usage never came.
    """

    ledger: Ledger
    pools: Counter[str]
    sessions: Counter[str]
    tries: int
    claimed: int
    drivers: Counter[str]
    unheard: Counter[str]
    fates: Counter[str]
    flags: frozenset[str]
    problems: list[str]


def judge(
    scenario: Scenario,
    played: Played,
    books: Books,
    truth: Sequence[Row],
    bugs: Sequence[str],
) -> list[str]:
    """What is wrong, a line each; empty where all three witnesses agree.

    Args:
        scenario: What was played.
        played: What came of it.
        books: What costspan made of it.
        truth: The provider's rows of this play.
        bugs: What went wrong inside the provider.
    """
    found = _found(books)
    wrong = [*played.problems, *found.problems]
    wrong += _against_expected(scenario, found)
    wrong += _against_truth(scenario, played, found, truth)
    wrong += unsound(scenario, books.events(), truth)
    wrong += [f"the provider itself failed: {bug}" for bug in bugs]
    return [*wrong, *_signs(scenario, played, found, wrong)]


def report(scenario: Scenario, wrong: Iterable[str], where: str, kept: str) -> str:
    """A failure message: rule, books expected and found, likely cause, and where they are kept."""
    lines = [f"{scenario.id} {scenario.title!r} on {where}: the books are wrong"]
    lines += [f"  {each}" for each in wrong]
    lines.append(f"  proves  {', '.join(scenario.proves)}")
    lines.append(f"  arith   {scenario.arith}")
    lines.append(f"  likely  {scenario.likely}")
    lines.append(f"  kept    {kept}")
    return "\n".join(lines)


def expected_ledger(scenario: Scenario) -> Ledger:
    """The expected lines of all tenants, in pico-USD."""
    lines: Ledger = {}
    for tenant, factor in scenario.tenants.items():
        for owner, buckets in scenario.expected.ledger.items():
            for bucket, amounts in buckets.items():
                line = (tenant if owner == "$tenant" else owner, bucket)
                cost, charge = lines.get(line, (0, 0))
                more = parse_usd(amounts.cost)
                billed = more if amounts.charge is None else parse_usd(amounts.charge)
                if owner.startswith("@") and amounts.charge is None:
                    billed = 0
                lines[line] = (cost + more * factor, charge + billed * factor)
    return {line: amounts for line, amounts in lines.items() if any(amounts)}


def _signs(scenario: Scenario, played: Played, found: Found, wrong: Sequence[str]) -> Iterator[str]:
    """Where such books mostly come from, whatever the scenario was made for."""
    if not wrong:
        return
    nobody = ("@unattributed", "unattributed")
    if played.problems:
        yield "a sign: the host or its driver failed, see above; the books may be right about that"
    elif nobody in found.ledger and nobody not in expected_ledger(scenario):
        yield "a sign: the owner was lost where the record was made (a thread, a pool, a callback)"
    elif found.fates["unpriced"] > scenario.expected.unpriced * len(scenario.tenants):
        yield "a sign: usage without a price: no model named, or a component that nobody prices"
    elif any("open, unmeasured or estimated" in each for each in wrong):
        yield (
            "a sign: an attempt that never ended, an end without usage, or a failure that does not"
            " say whether it was billed (provider_billed)"
        )


def _found(books: Books) -> Found:
    totals = books.totals()
    lines: dict[Line, list[int]] = {}
    pools: Counter[str] = Counter()
    sessions: Counter[str] = Counter()
    tries = claimed = 0
    problems: list[str] = []
    drivers: Counter[str] = Counter()
    unheard: Counter[str] = Counter()
    fates: Counter[str] = Counter()
    flags: set[str] = set()
    for event in books.events():
        fate = _fate(event)
        fates[fate] += 1
        flags.update(event.get("flags", ()))
        tries += event.get("attempt", 1) > 1
        claimed += "client_claims" in event
        if (longest := _longest(event.get("client_claims"))) > CLAIM_CHARS_MAX:
            problems.append(f"a client's claim of {longest} characters is kept")
        if fate in _UNHEARD:
            unheard[event.get("driver") or ""] += 1
        if fate != "priced":
            continue
        if "flat_cost" not in event and "members" not in event:
            drivers[event.get("driver") or ""] += parse_usd(event["cost"])
        for share in event["shares"]:
            if "members" in event:  # each caused its own lines, whoever sent the batch
                drivers[share["owner"]] += parse_usd(share["cost"])
            line = lines.setdefault((share["owner"], share["bucket"]), [0, 0])
            line[0] += parse_usd(share["cost"])
            line[1] += parse_usd(share["charge"])
            if share["owner"] == "@platform":
                pools[share["pool"]] += parse_usd(share["cost"])
            elif not share["owner"].startswith("@"):
                sessions[event.get("session", "")] += parse_usd(share["cost"])
    if not totals["balanced"]:
        problems.append("the books do not balance: cost is not tenants + platform + unattributed")
    for name, number in books.ledger.counts().items():
        if number and name in (
            "identity_conflict",
            "conflict",
            "unmatched",
            "unmatched_downstream",
        ):
            problems.append(f"{number} observations are listed as {name}")
    ledger = {line: (cost, charge) for line, (cost, charge) in lines.items() if cost or charge}
    return Found(
        ledger,
        pools,
        sessions,
        tries,
        claimed,
        drivers,
        unheard,
        fates,
        frozenset(flags),
        problems,
    )


def _longest(value: object) -> int:
    """The length of the longest text in a value of JSON."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        found = cast("Mapping[str, object]", value)
        return max(map(_longest, (*found, *found.values())), default=0)
    if isinstance(value, list | tuple):
        return max(map(_longest, cast("list[object]", value)), default=0)
    return 0


def _fate(event: Mapping[str, Any]) -> str:
    """priced, free, estimated, unmeasured, unpriced or open."""
    if event["outcome"] == "open":
        return "open"
    cost = event.get("cost")
    if cost is None:
        return "unpriced" if event.get("usage") else "unmeasured"
    if event.get("usage_source") == "estimated":
        return "estimated"
    return "priced" if parse_usd(cost) or parse_usd(event["charge"] or "0") else "free"


def _against_expected(scenario: Scenario, found: Found) -> list[str]:
    expected = expected_ledger(scenario)
    wrong: list[str] = []
    for line in sorted(expected.keys() | found.ledger.keys()):
        wanted, got = expected.get(line, (0, 0)), found.ledger.get(line, (0, 0))
        if wanted != got:
            wrong.append(
                f"{line[0]} {line[1]}: expected cost {format_usd(wanted[0])} charge"
                f" {format_usd(wanted[1])}, found cost {format_usd(got[0])} charge"
                f" {format_usd(got[1])} ({_ratio(got[0], wanted[0])})"
            )
    tenants = len(scenario.tenants)
    said = scenario.expected
    for fate, wanted_events in (("priced", said.priced), ("unpriced", said.unpriced)):
        if found.fates[fate] != wanted_events * tenants:
            wrong.append(
                f"{fate} events: expected {wanted_events * tenants}, found {found.fates[fate]}"
            )
    if said.tries is not None and found.tries != said.tries * tenants:
        wrong.append(f"second tries: expected {said.tries * tenants}, found {found.tries}")
    if said.claimed is not None and found.claimed != said.claimed * tenants:
        wrong.append(
            f"events with a client's claims: expected {said.claimed * tenants},"
            f" found {found.claimed}"
        )
    by_name = (("pool", said.pools, found.pools), ("session", said.sessions, found.sessions))
    for what, said_costs, found_costs in by_name:
        if said_costs:
            wrong += _differing(what, _of_all(scenario, said_costs), found_costs)
    wrong += [f"no event is flagged {flag!r}" for flag in said.flags if flag not in found.flags]
    return wrong


def _of_all(scenario: Scenario, costs: Mapping[str, str]) -> Counter[str]:
    """What one tenant at factor 1 costs by some name, for all tenants."""
    total: Counter[str] = Counter()
    for tenant, factor in scenario.tenants.items():
        for name, cost in costs.items():
            total[name.replace("$tenant", tenant)] += parse_usd(cost) * factor
    return total


def _differing(what: str, wanted: Counter[str], got: Counter[str]) -> list[str]:
    return [
        f"{what} {name or 'of none'}: expected cost {format_usd(wanted[name])}, found"
        f" {format_usd(got[name])}"
        for name in sorted(wanted.keys() | got.keys())
        if wanted[name] != got[name]
    ]


def _ratio(got: int, wanted: int) -> str:
    if not wanted:
        return "expected nothing there"
    return "lost" if not got else f"{got / wanted:.2f} of what it should be"


def _against_truth(
    scenario: Scenario, played: Played, found: Found, truth: Sequence[Row]
) -> list[str]:
    """The provider's books, tenant by tenant; what never reached the client must be visible."""
    told: Counter[str] = Counter()
    lost: list[Row] = []
    unpriced: list[Row] = []
    for row in truth:
        if not row.billed:
            continue
        if row.executed_model in scenario.unpriced_models:
            unpriced.append(row)
        elif row.reported and row.case not in played.left:
            told[row.tenant or ""] += row.cost_pico
        else:
            lost.append(row)
    wrong = _against_invoice(found, truth, (*lost, *unpriced))
    for tenant in sorted(told.keys() | found.drivers.keys()):
        if told[tenant] != found.drivers[tenant]:
            wrong.append(
                f"the provider billed {format_usd(told[tenant])} for what {tenant or 'nobody'}"
                f" caused, the ledger says {format_usd(found.drivers[tenant])}"
            )
    wanted = scenario.expected.lost * len(scenario.tenants)
    if len(lost) != wanted:
        wrong.append(
            f"the script was to lose the usage of {wanted} requests, and lost {len(lost)}:"
            f" {_named(lost)}"
        )
    hidden = scenario.expected.hidden * len(scenario.tenants)
    visible = found.unheard.total()
    if not len(lost) - hidden <= visible <= len(lost):
        wrong.append(
            f"the books show {visible} events as open, unmeasured or estimated; the billed requests"
            f" whose usage never came are {len(lost)} ({_named(lost)})"
            + (f", of which {hidden} may hide in the host's SDK" if hidden else "")
        )
    if strays := found.unheard - Counter(row.tenant or "" for row in lost):
        wrong.append(
            "open, unmeasured or estimated, and caused by somebody else: "
            + ", ".join(f"{number} of {tenant or 'nobody'}" for tenant, number in strays.items())
        )
    return wrong


def _against_invoice(found: Found, truth: Sequence[Row], unheard: Sequence[Row]) -> list[str]:
    """The invoice is the ledger, and exactly what nobody was told or has a price for."""
    invoice = sum(line.amount_pico for line in invoice_lines(truth))
    ledger, explained = found.drivers.total(), sum(row.cost_pico for row in unheard)
    if invoice == ledger + explained:
        return []
    return [
        f"the invoice says {format_usd(invoice)}, the ledger {format_usd(ledger)}; of the"
        f" difference {format_usd(explained)} is explained: {_named(unheard)}"
    ]


def _named(rows: Iterable[Row]) -> str:
    return ", ".join(f"{row.tenant}'s {row.purpose}" for row in rows) or "none"
