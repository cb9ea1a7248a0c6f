"""Invoice adjustments: what brings the books of a period to what the provider bills.

Each is a free posting: it names no event and changes no row of any. What an account was adjusted
by already is taken into account, so that a second run posts nothing, and another version of an
invoice, or late telemetry, only the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from costspan.core.decide.decision import PLATFORM
from costspan.core.journal.records import FreeLine, FreePostings
from costspan.core.money import split
from costspan.core.reconcile.billed import Billed
from costspan.core.reconcile.compare import Reconciliation
from costspan.core.reconcile.recorded import Recorded
from costspan.core.reconcile.variance import Grain
from costspan.core.settle.free import ADJUSTMENT, free_postings
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
    tell: Callable[[int], None] = lambda _: None,
) -> list[FreePostings]:
    """The records that bring the books to the invoices' usage; settle them. None if all agrees.

    Where the rule says that the ledger's totals count, there is nothing to adjust; nor for an
    invoice in another currency.
    """
    targets = _targets(ledger, found, tell)
    records: list[FreePostings] = []
    scopes = targets.keys() | {
        scope
        for each in found.adjustments
        if (scope := _scope(each)) is not None and scope[0] in {d.provider for d in found.documents}
    }
    for scope in sorted(scopes):
        provider, account = scope
        rule = found.authority.rule(provider, account)
        if provider in found.foreign:
            continue
        target = targets.get(scope, {}) if rule.totals == "provider" else {}
        posted = [each for each in found.adjustments if _scope(each) == scope]
        lines = _differences(target, posted, rule.charge_adjustments)
        about = _about(found, provider, account) | {
            "method": rule.adjust,
            "rule": found.authority.sha256,
        }
        for part in range(0, len(lines), _LINES_MAX):
            records.append(
                free_postings(
                    kind="invoice_adjust",
                    period=found.period,
                    lines=lines[part : part + _LINES_MAX],
                    about={**about, "after": str(len(posted) + part // _LINES_MAX)},
                    by=by,
                    reason=reason,
                    recorded_at=at,
                )
            )
    return records


def _scope(record: FreePostings) -> tuple[str, str] | None:
    about = record.about
    if "provider" not in about or "grain_account" not in about:
        return None
    return about["provider"], about["grain_account"]


def _about(found: Reconciliation, provider: str, account: str) -> dict[str, str]:
    documents = [each.invoice for each in found.documents if each.provider == provider]
    documents = [each for each in documents if each.currency]
    return {
        "provider": provider,
        "grain_account": account,
        "invoice": ",".join(each.id for each in documents),
        "source": ",".join(sorted({each.source for each in documents})),
        "account": ",".join(sorted({each.account for each in documents})),
    }


def _targets(
    ledger: Ledger, found: Reconciliation, tell: Callable[[int], None]
) -> dict[tuple[str, str], dict[Key, int]]:
    """Account -> what its lines should come to, all adjustments together."""
    missing = {
        case.grain: _money(case.billed) - _money(case.recorded)
        for case in found.cases
        if case.grain.provider not in found.foreign
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
