"""Invoice adjustments: what brings the books of a period to what the provider bills.

Each is a free posting: it names no event and changes no row of any. What an account was adjusted
by already is taken into account, so that a second run posts nothing, and another version of an
invoice, or late telemetry, only the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

import msgspec

from costspan.core.decide.decision import PLATFORM
from costspan.core.journal.records import FreeLine, FreePostings
from costspan.core.money import split
from costspan.core.reconcile.billed import Billed
from costspan.core.reconcile.compare import TOGETHER, Reconciliation
from costspan.core.reconcile.recorded import Recorded
from costspan.core.reconcile.variance import Grain
from costspan.core.settle.free import ADJUSTMENT, AMOUNT_PICO_MAX, free_postings
from costspan.core.settle.ledger import Ledger

POOL = "invoice"
_LINES_MAX = 10_000
Key = tuple[str, str, str]
"""Owner, day, model of a line."""


def adjustments(
    ledger: Ledger,
    found: Reconciliation,
    *,
    by: str,
    reason: str,
    at: int,
    disputed: Collection[Grain] = (),
    tell: Callable[[int], None] = lambda _: None,
) -> list[FreePostings]:
    """The records that bring the books to the invoices' usage; settle them. None if all agrees.

    Where the rule says that the ledger's totals count, there is nothing to adjust; nor for an
    invoice in another currency, nor for `disputed` grains: what they were adjusted by is taken
    back.
    """
    targets = _targets(ledger, found, disputed, tell)
    records: list[FreePostings] = []
    scopes = targets.keys() | {
        scope
        for each in found.adjustments
        if (scope := _scope(each)) is not None and scope[0] in {d.provider for d in found.documents}
    }
    for scope in sorted(scopes):
        provider, account = scope
        rule = found.authority.rule(provider, account)
        if provider in found.foreign | found.unbilled:
            continue
        target = targets.get(scope, {}) if rule.totals == "provider" else {}
        posted = [each for each in found.adjustments if _scope(each) == scope]
        lines = _differences(target, posted, rule.charge_adjustments)
        about = _about(found, provider, account) | {
            "method": rule.adjust,
            "rule": found.authority.sha256,
        }
        for number, part in enumerate(_in_parts(lines), len(posted)):
            records.append(
                free_postings(
                    kind="invoice_adjust",
                    period=found.period,
                    lines=part,
                    about={**about, "after": str(number)},
                    by=by,
                    reason=reason,
                    recorded_at=at,
                )
            )
    return records


def _in_parts(lines: list[FreeLine]) -> Iterator[list[FreeLine]]:
    """So many lines a record, and no more on a line than a posting holds.

    The rest of such a line stands in a record after it: within one they would be added up again.
    """
    while lines:
        held = [_with(line, _held(line.cost), _held(line.charge)) for line in lines]
        for first in range(0, len(held), _LINES_MAX):
            yield held[first : first + _LINES_MAX]
        pairs = zip(lines, held, strict=True)
        rest = (_with(line, line.cost - is_in.cost, line.charge - is_in.charge)
                for line, is_in in pairs)  # fmt: skip
        lines = [line for line in rest if line.cost or line.charge]


def _held(pico: int) -> int:
    return max(-AMOUNT_PICO_MAX, min(AMOUNT_PICO_MAX, pico))


def _with(line: FreeLine, cost: int, charge: int) -> FreeLine:
    return msgspec.structs.replace(line, cost=cost, charge=charge)


def _scope(record: FreePostings) -> tuple[str, str] | None:
    about = record.about
    if "provider" not in about or "grain_account" not in about:
        return None
    return about["provider"], about["grain_account"]


def _about(found: Reconciliation, provider: str, account: str) -> dict[str, str]:
    documents = [
        each.invoice for each in found.documents if each.provider == provider and each.is_money
    ]
    return {
        "provider": provider,
        "grain_account": account,
        "invoice": ",".join(each.id for each in documents),
        "source": ",".join(sorted({each.source for each in documents})),
        "account": ",".join(sorted({each.account for each in documents})),
    }


def _targets(
    ledger: Ledger,
    found: Reconciliation,
    disputed: Collection[Grain],
    tell: Callable[[int], None],
) -> dict[tuple[str, str], dict[Key, int]]:
    """Account -> what its lines should come to, all adjustments together."""
    missing = {
        case.grain: _money(case.billed) - _money(case.recorded)
        for case in found.cases
        if case.grain.provider not in found.foreign | found.unbilled
        and not _is_disputed(case.grain, disputed)
    }
    missing = {grain: money for grain, money in missing.items() if money}
    shared = {
        grain
        for grain in missing
        if found.authority.rule(grain.provider, grain.account).adjust == "pro_rata"
    }
    weights = _tenants(ledger, found, shared, tell) if shared else {}
    targets: dict[tuple[str, str], dict[Key, int]] = {}
    for grain, money in missing.items():
        owners = weights.get(grain) or {PLATFORM: 1}
        target = targets.setdefault((grain.provider, grain.account), {})
        for owner, pico in split(money, owners).items():
            key = (owner, grain.day, grain.model)
            target[key] = target.get(key, 0) + pico
    return targets


def _is_disputed(grain: Grain, disputed: Collection[Grain]) -> bool:
    """By itself, or because what the small differences of its account come to is."""
    together = Grain(grain.provider, grain.account, "", "", TOGETHER)
    return grain in disputed or together in disputed


def _money(side: Billed | Recorded | None) -> int:
    return 0 if side is None else side.amounts.money


def _tenants(
    ledger: Ledger, found: Reconciliation, grains: Iterable[Grain], tell: Callable[[int], None]
) -> dict[Grain, dict[str, int]]:
    """Grain -> tenant -> what it bore of the grain's cost, of those that bore anything.

    A second pass over the events: what is kept grows with the tenants of the grains asked for.
    """
    wanted = set(grains)
    weights: dict[Grain, dict[str, int]] = {}
    for number, each in enumerate(ledger.events(), 1):
        if number % 2000 == 0:
            tell(number)
        if each.decision is None or not each.decision.cost:
            continue
        place = found.telemetry.place_of(each)
        grain = found.shape.of_place(place) if place is not None else None
        if grain not in wanted or grain is None:
            continue
        costs = weights.setdefault(grain, {})
        for share in each.decision.shares:
            if not share.owner.startswith("@") and share.cost > 0:
                costs[share.owner] = costs.get(share.owner, 0) + share.cost
    return weights


def _differences(
    target: dict[Key, int], posted: Iterable[FreePostings], is_charged: bool
) -> list[FreeLine]:
    """Target - what was posted already, line by line; cost and charge."""
    wanted: dict[Key, tuple[int, int]] = {
        key: (pico, pico if is_charged and not key[0].startswith("@") else 0)
        for key, pico in target.items()
    }
    have: dict[Key, tuple[int, int]] = {}
    for record in posted:
        for line in record.lines:
            cost, charge = have.get((line.owner, line.day, line.model), (0, 0))
            have[line.owner, line.day, line.model] = (cost + line.cost, charge + line.charge)
    lines: list[FreeLine] = []
    for key in sorted(wanted.keys() | have.keys()):
        cost = wanted.get(key, (0, 0))[0] - have.get(key, (0, 0))[0]
        charge = wanted.get(key, (0, 0))[1] - have.get(key, (0, 0))[1]
        if cost or charge:
            owner, day, model = key
            lines.append(FreeLine(owner, ADJUSTMENT, POOL, day, model, cost, charge))
    return lines
