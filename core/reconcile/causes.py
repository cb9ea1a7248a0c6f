"""Causes, found from the data: each says exactly how much of a difference it explains.

In order of certainty: what the lines themselves show (copies, prices), what days show (the edge of
a day, days that are missing), what is on one side only, and at last calls whose usage nobody told.
What is left then is called unexplained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta

from costspan.core.money import split
from costspan.core.reconcile.billed import Bill
from costspan.core.reconcile.case import Case
from costspan.core.reconcile.drift import Of, effects
from costspan.core.reconcile.naming import Models, Rows
from costspan.core.reconcile.recorded import Part
from costspan.core.reconcile.variance import Amounts, Evidence, Grain

_NOTHING = Amounts()
_UNTOLD = ("open", "swept", "unknown_stream")
"""Calls that the provider may have served."""


class Clues:
    """What the whole period says, beside a single grain."""

    def __init__(
        self, period: str, cases: Sequence[Case], bill: Bill, models: Models, rows: Rows
    ) -> None:
        self.period = period
        self.bill = bill
        self.models = models
        self.rows = rows
        self.recorded_models: set[tuple[str, str, str]] = set()
        self.recorded_days: set[tuple[str, str]] = set()
        for case in cases:
            if case.recorded is not None:
                grain = case.grain
                self.recorded_models.add((grain.provider, grain.account, grain.model or grain.item))
                self.recorded_days.add((grain.provider, grain.day))


def explain(period: str, cases: Sequence[Case], bill: Bill, models: Models, rows: Rows) -> None:
    """Find the causes of every case's difference."""
    clues = Clues(period, cases, bill, models, rows)
    for find in (_copies, _prices):
        for case in cases:
            find(case, clues)
    day_edges(cases)
    for find in (_one_sided, _batches, _untold, _weak):
        for case in cases:
            find(case, clues)


def _copies(case: Case, clues: Clues) -> None:
    """Lines that stand there twice, where less of them would be right."""
    if case.billed is None or not case.billed.copies.count:
        return
    copies = case.billed.copies
    is_right = 0 < copies.amounts.money <= case.left.money or (
        not copies.amounts.money and 0 < copies.amounts.tokens <= case.left.tokens
    )
    if is_right:
        evidence = Evidence((), 0, tuple(copies.lines), copies.count)
        text = f"{copies.count} line(s) stand on the invoice more than once"
        case.take("duplicate_line", copies.amounts, text, evidence)


def _prices(case: Case, clues: Clues) -> None:
    """Other prices than ours, and calls of ours without any."""
    if case.billed is None or not case.left.money:
        return
    ours = case.recorded.parts(clues.rows) if case.recorded else {}
    theirs = dict(case.billed.parts)
    copied = case.billed.copies.amounts.money
    if copied and any(found.kind == "duplicate_line" for found in case.findings):
        theirs = _without_copies(case, theirs)
    grain = case.grain
    of = Of(grain.model, grain.provider, _noon_ns(grain.day or f"{clues.period}-15"), clues.models)
    if not grain.model and not grain.item:
        return  # a mix of models has no price of its own
    for kind, money, text, rows in effects(ours, theirs, of):
        kinds = ("unpriced",) if kind == "unpriced" else ()
        case.take(kind, Amounts(0, 0, money), text, case.evidence(kinds, rows))


def _without_copies(case: Case, theirs: dict[tuple[str, str], Part]) -> dict[tuple[str, str], Part]:
    assert case.billed is not None
    copied = case.billed.copies.parts
    return {
        key: Part(
            part.quantity - copied.get(key, Part()).quantity,
            0,
            part.money - copied.get(key, Part()).money,
        )
        for key, part in theirs.items()
    }


def day_edges(cases: Iterable[Case]) -> None:
    """What is missing on one day and stands, to the pico, on the next days or the days before.

    First the calls that are known to have crossed midnight, then days in a row whose differences
    cancel out exactly.
    """
    rows: dict[Grain, dict[date, Case]] = {}
    for case in cases:
        if case.grain.day:
            days = rows.setdefault(case.grain._replace(day=""), {})
            days[date.fromisoformat(case.grain.day)] = case
    for days in rows.values():
        _crossings(days)
        run: list[Case] = []
        total = _NOTHING
        before: date | None = None
        for day in sorted(days):
            case = days[day]
            if before is None or day - before != timedelta(days=1) or case.left == _NOTHING:
                run, total = [], _NOTHING
            before = day
            if case.left == _NOTHING:
                continue
            run.append(case)
            total = total.plus(case.left)
            start = _cancelling(run)
            if start is not None:
                _shifted(run[start:])
                run, total = [], _NOTHING


def _cancelling(run: Sequence[Case]) -> int | None:
    """From where on a run of days cancels out; the shortest."""
    total = _NOTHING
    for at in range(len(run) - 1, -1, -1):
        total = total.plus(run[at].left)
        if total == _NOTHING and at < len(run) - 1:
            return at
    return None


def _shifted(run: Sequence[Case]) -> None:
    first, last = run[0].grain.day, run[-1].grain.day
    for case in run:
        where = "missing here" if case.left.money < 0 else "extra here"
        text = f"{where}, and the same the other way round between {first} and {last}"
        case.take("day_edge", case.left, text, case.evidence(("crossing",)))


def _crossings(days: dict[date, Case]) -> None:
    for day, case in days.items():
        crossing = case.noted(("crossing",)).amounts
        after = days.get(day + timedelta(days=1))
        if crossing == _NOTHING or not _covers(case.left, crossing, -1):
            continue
        back = _NOTHING.minus(crossing)
        text = "began before midnight UTC and ended after it: billed on the next day"
        if after is None:
            if case.left == back:
                case.take("day_edge", back, text, case.evidence(("crossing",)))
        elif _covers(after.left, crossing, 1) and _covers(crossing, _opposite(case, after), 1):
            case.take("day_edge", back, text, case.evidence(("crossing",)))
            after.take("day_edge", crossing, text, case.evidence(("crossing",)))


def _opposite(case: Case, after: Case) -> Amounts:
    """No more than what both days agree on."""
    return Amounts(*(min(-a, b) for a, b in zip(case.left, after.left, strict=True)))


def _covers(left: Amounts, part: Amounts, sign: int) -> bool:
    """Whether what is left has at least this much of it, in this direction."""
    return left.money * sign >= part.money > 0 and (
        not left.tokens or left.tokens * sign >= part.tokens
    )


def _one_sided(case: Case, clues: Clues) -> None:
    """What one side alone has: days, models, accounts that the other knows nothing of."""
    grain, bill = case.grain, clues.bill
    name = grain.model or grain.item
    if case.left == _NOTHING:
        return
    if case.billed is None:
        billed_days = bill.days.get(grain.provider, set())
        last = max(billed_days, default="")
        if grain.day and grain.day > last:
            text = f"the invoice ends on {last or 'no day'}: not billed yet"
            case.take("not_billed", case.left, text, _events_of(case))
        elif grain.day and grain.day not in billed_days:
            text = f"no line of the invoice is of {grain.day}"
            case.take("missing_day", case.left, text, _events_of(case))
        elif grain.model and grain.model not in bill.models.get(grain.provider, set()):
            text = f"{grain.model} is on no line of the invoice: billed elsewhere, or not yet"
            case.take("not_billed", case.left, text, _events_of(case))
    elif case.recorded is None:
        if (grain.provider, grain.account, name) not in clues.recorded_models:
            where = f" of account {grain.account}" if grain.account else ""
            text = f"no event of {name or 'this provider'}{where} in the whole period"
            case.take("outside_path", case.left, text)
        elif grain.day and (grain.provider, grain.day) not in clues.recorded_days:
            text = f"no event of {grain.provider} was recorded on {grain.day}"
            case.take("unrecorded_day", case.left, text)


def _events_of(case: Case) -> Evidence:
    return case.evidence(("some",))


def _untold(case: Case, clues: Clues) -> None:
    """Calls that left no usage: what they cost is what is left, if anything of quantity is."""
    left = case.left
    is_request = left.requests > 0 and not left.tokens and not left.money
    is_usage = min(left) >= 0 and (left.tokens or (left.money and not case.has_tokens))
    if not is_request and not is_usage:
        return
    counts = {kind: many for kind in _UNTOLD if (many := case.count(kind))}
    certain = case.count("missing_usage")
    hidden = case.noted(("silent_retry",)).amounts.requests
    if case.has_requests:
        untold = sum(counts.values())
        hidden = max(0, left.requests - untold)
        served = left.requests - hidden
        requests = split(served, counts) if counts else {}
    else:
        requests = {}
    weights = {**counts, **({"missing_usage": certain} if certain else {})}
    if case.has_requests:
        weights = {kind: requests.get(kind, many) for kind, many in weights.items()}
    if hidden:
        weights["silent_retry"] = hidden
        requests["silent_retry"] = hidden if case.has_requests else 0
    weights = {kind: many for kind, many in weights.items() if many}
    if not weights:
        return
    tokens, money = split(left.tokens, weights), split(left.money, weights)
    is_shared = len(weights) > 1 and bool(left.tokens or left.money)
    for kind, many in weights.items():
        amounts = Amounts(requests.get(kind, 0), tokens[kind], money[kind])
        text = _SAID[kind](case, many)
        if is_shared:
            text += "; together with others here: the amount is split by numbers of calls"
        case.take(kind, amounts, text, case.evidence((kind,)), is_shared)


def _silent(case: Case, many: int) -> str:
    told = case.noted(("silent_retry",)).amounts.requests
    blind = case.count("blind")
    text = f"{many} more request(s) were billed than attempts recorded"
    if told:
        return f"{text}; clients told of {told} hidden retries"
    if blind:
        return f"{text}; {blind} event(s) cannot see their client's retries"
    return f"{text}; a retry inside a client, or a caller without instrument"


_SAID: dict[str, Callable[[Case, int], str]] = {
    "open": lambda _, many: f"{many} call(s) started and have not ended yet",
    "swept": lambda _, many: f"{many} call(s) started and nobody saw them end",
    "unknown_stream": lambda _, many: f"{many} call(s) were cut short: usage not told",
    "missing_usage": lambda _, many: f"{many} answer(s) came without usage",
    "silent_retry": _silent,
}


def _batches(case: Case, clues: Clues) -> None:
    """A batch is one call in the books and a request a line on the invoice.

    How many lines is not recorded: where there are batches, more requests say nothing of retries.
    """
    more = case.left.requests - sum(case.count(kind) for kind in _UNTOLD)
    if more > 0 and (many := case.count("batch")):
        text = f"{many} batch(es), each one call in the books and a request a line here"
        case.take("batch", Amounts(more), text, case.evidence(("batch",)))


def _weak(case: Case, clues: Clues) -> None:
    """What may be behind the rest: usage that was estimated, numbers that may still change."""
    if case.left == _NOTHING:
        return
    if case.count("estimated"):
        text = f"{case.count('estimated')} call(s) whose usage was estimated"
        case.take("estimated", case.left, text, case.evidence(("estimated",)))
    elif case.billed is not None and case.billed.is_provisional:
        case.take("provisional", case.left, "the provider says that this may still change")
    elif min(case.left) < 0 and (case.billed is None or case.left.requests < 0):
        text = "the books have calls here that the invoice lacks"
        case.take("not_billed", case.left, text, _events_of(case))


def _noon_ns(day: str) -> int:
    """The middle of a day (ns UTC)."""
    days = date.fromisoformat(day).toordinal() - date(1970, 1, 1).toordinal()
    return (days * 86_400 + 43_200) * 10**9
