"""What became of another system's rows: counted, attributed, and compared with its own amounts."""

from __future__ import annotations

from collections import Counter
from typing import Any

from costspan.cli.printing import Column, Page, counted, print_json, to_stderr
from costspan.core.backfill.compare import CAUSES, Comparison, Line
from costspan.core.money import format_usd
from costspan.core.settle import Report

_SHOWN_MAX = 20


class Outcome:
    """Everything that is to be said of one run."""

    def __init__(self, kind: str, ledger_url: str) -> None:
        self.kind = kind
        self.ledger_url = ledger_url
        self.rows = 0
        self.rejected: list[tuple[str, str]] = []
        self.left_out: Counter[str] = Counter()
        self.flags: Counter[str] = Counter()
        self.settled = Report()
        self.compared = Comparison()


def print_outcome(outcome: Outcome, *, as_json: bool) -> None:
    """Print it, for a program or for people."""
    if as_json:
        print_json(_plain(outcome))
        to_stderr(f"ledger: {outcome.ledger_url}")
    else:
        _print(outcome)


def _amounts(line: Line) -> dict[str, Any]:
    return {
        "rows": line.rows,
        "theirs": format_usd(line.theirs),
        "ours": format_usd(line.ours),
        "difference": format_usd(line.ours - line.theirs),
    }


def _differences(outcome: Outcome) -> list[dict[str, Any]]:
    """By cause, in the order in which they are told apart; the largest first within one."""
    order = list(CAUSES)
    held = outcome.compared.differences
    keys = sorted(
        held, key=lambda k: (order.index(k[0]), -abs(held[k].ours - held[k].theirs), k[1])
    )
    return [
        {"cause": cause, "means": CAUSES[cause], "model": model, **_amounts(held[cause, model])}
        for cause, model in keys
    ]


def _unattributed(outcome: Outcome) -> list[dict[str, Any]]:
    held = outcome.compared.unattributed
    return [{"reason": reason, **_amounts(held[reason])} for reason in sorted(held)]


def _plain(outcome: Outcome) -> dict[str, Any]:
    compared, settled = outcome.compared, outcome.settled
    return {
        "source": outcome.kind,
        "rows": outcome.rows,
        "new": settled.observations,
        "duplicates": settled.duplicates,
        "conflicts": settled.conflicts,
        "rejected": [{"where": where, "reason": reason} for where, reason in outcome.rejected],
        "left_out": dict(outcome.left_out),
        "flags": dict(outcome.flags),
        "met": compared.met,
        "unmatched": compared.unmatched,
        "settled": {name: getattr(settled, name) for name in settled.__struct_fields__},
        "unattributed": _unattributed(outcome),
        "differences": _differences(outcome),
        "totals": _amounts(compared.all),
    }


def _print(outcome: Outcome) -> None:
    page, settled, compared = Page(), outcome.settled, outcome.compared
    page.line(f"ledger {outcome.ledger_url}", "dim")
    left_out = outcome.left_out.total()
    page.line(
        f"read {counted(outcome.rows, 'row')}: {settled.observations:,} new,"
        f" {settled.duplicates:,} in the ledger already, {left_out:,} left out,"
        f" {len(outcome.rejected):,} rejected; {counted(settled.events, 'event')} decided,"
        f" {counted(settled.postings, 'posting')}"
    )
    if settled.conflicts:
        page.line(
            f"{counted(settled.conflicts, 'conflict')}: a row that says otherwise than when it was"
            " ingested before (or other options); both are kept, one is believed",
            "yellow",
        )
    if compared.met:
        page.line(f"{counted(compared.met, 'row')} met a call that was recorded live")
    if compared.unmatched:
        page.line(
            f"{counted(len(compared.unmatched), 'row')} in no event: their response id is that of"
            " several calls",
            "yellow",
        )
    for reason, many in sorted(outcome.left_out.items()):
        page.line(f"left out, {counted(many, 'row')}: {reason}")
    if outcome.flags:
        said = ", ".join(f"{flag} ({many:,})" for flag, many in sorted(outcome.flags.items()))
        page.line(f"kept, with a note: {said}", "yellow")
    _print_amounts(page, outcome)
    for where, reason in outcome.rejected[:_SHOWN_MAX]:
        to_stderr(f"{where}: {reason}")
    if len(outcome.rejected) > _SHOWN_MAX:
        to_stderr(f"... and {len(outcome.rejected) - _SHOWN_MAX:,} more (--json names every one)")


_MONEY = tuple(Column(n, is_number=True) for n in ("rows", "theirs", "ours", "difference"))


def _cells(row: dict[str, Any]) -> list[str]:
    return [f"{row['rows']:,}", row["theirs"], row["ours"], row["difference"]]


def _print_amounts(page: Page, outcome: Outcome) -> None:
    unattributed, differences = _unattributed(outcome), _differences(outcome)
    if unattributed:
        page.line()
        page.line("not attributed to any tenant", "bold")
        page.table(
            [Column("reason"), *_MONEY], ([row["reason"], *_cells(row)] for row in unattributed)
        )
    if differences:
        page.line()
        page.line("their amounts (USD) beside those of the books, by cause", "bold")
        total = ["all", "", "", *_cells(_amounts(outcome.compared.all))]
        rows = [[row["cause"], row["model"], row["means"], *_cells(row)] for row in differences]
        page.table([Column("cause"), Column("model"), Column("means"), *_MONEY], [*rows, total])
