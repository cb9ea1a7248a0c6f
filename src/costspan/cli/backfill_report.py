"""What became of another system's rows: counted, attributed, and compared with its own amounts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.text import Text

from costspan.cli.backfill_outcome import Outcome
from costspan.cli.moments import day
from costspan.cli.printing import (
    Column,
    Page,
    amount,
    counted,
    print_csv,
    print_json,
    shown,
    to_stderr,
)
from costspan.core.backfill.causes import CAUSES
from costspan.core.backfill.compare import UNMATCHED_MAX, Line
from costspan.core.money import format_usd

_SHOWN_MAX = 20
_OWNERS_SHOWN = 10
_MODELS_SHOWN = 3
_AMOUNTS = ("rows", "theirs", "ours", "difference", "unknown")
TrustOf = Callable[[str], str]


def print_outcome(
    outcome: Outcome, trust_of: TrustOf, *, as_json: bool = False, as_csv: bool = False
) -> None:
    """Print it, for a program, a spreadsheet or people.

    Args:
        outcome: What is to be said.
        trust_of: Who says what stands in a place of the source.
        as_json: One JSON document with all of it.
        as_csv: The differences by cause and model alone.
    """
    if as_json:
        print_json(_plain(outcome, trust_of))
    elif as_csv:
        rows = _differences(outcome)
        columns = ("cause", "model", *_AMOUNTS, "means")
        print_csv(columns, ([row[name] for name in columns] for row in rows))
    else:
        _print(outcome, trust_of)
    if as_json or as_csv:
        to_stderr(f"ledger: {outcome.ledger_url}")
    if not as_json:
        say_rejected(outcome)
        _say_withheld(outcome)


def _amounts(line: Line) -> dict[str, Any]:
    return {
        "rows": line.rows,
        "theirs": format_usd(line.theirs),
        "ours": format_usd(line.ours),
        "difference": format_usd(line.ours - line.theirs),
        "unknown": line.unknown,
    }


def _differences(outcome: Outcome) -> list[dict[str, Any]]:
    """By cause, in the order in which they are told apart; the largest first within one."""
    order = {cause: at for at, cause in enumerate(CAUSES)}
    held = outcome.compared.differences
    keys = sorted(held, key=lambda k: (order[k[0]], -abs(held[k].ours - held[k].theirs), k[1]))
    return [
        {"cause": cause, "means": CAUSES[cause], "model": model, **_amounts(held[cause, model])}
        for cause, model in keys
    ]


def _owners(outcome: Outcome) -> list[dict[str, Any]]:
    """The tenants first, what costs most first; then the platform and what is nobody's."""
    held = outcome.compared.owners
    keys = sorted(held, key=lambda k: (k[0].startswith("@"), -held[k].ours, k))
    return [
        {"owner": owner, "bucket": bucket, **_amounts(held[owner, bucket])}
        for owner, bucket in keys
    ]


def _listed(name: str, held: dict[str, Line]) -> list[dict[str, Any]]:
    return [{name: each, **_amounts(held[each])} for each in sorted(held)]


def _plain(outcome: Outcome, trust_of: TrustOf) -> dict[str, Any]:
    compared, settled = outcome.compared, outcome.settled
    places = _listed("place", compared.places)
    return {
        "source": outcome.kind,
        "files": outcome.files,
        "taken_once": [{"file": again, "same_as": read} for again, read in outcome.again],
        "tenant_from": list(outcome.tenant_from),
        "rows": outcome.rows,
        "new": settled.observations,
        "duplicates": settled.duplicates,
        "conflicts": settled.conflicts + outcome.withheld_sums,
        "withheld": sorted(outcome.withheld),
        "rejected_rows": outcome.rejected_rows,
        "rejected": [{"where": where, "reason": reason} for where, reason in outcome.rejected],
        "left_out": dict(outcome.left_out),
        "flags": dict(outcome.flags),
        "met": compared.met,
        "unmatched": compared.unmatched,
        "settled": {name: getattr(settled, name) for name in settled.__struct_fields__},
        "owners": _owners(outcome),
        "places": [{**each, "trust": trust_of(each["place"])} for each in places],
        "unattributed": _listed("reason", compared.unattributed),
        "differences": _differences(outcome),
        "totals": _amounts(compared.all),
    }


def say_rejected(outcome: Outcome) -> None:
    """Name the rejected rows on standard error, as far as they fit a screen."""
    for where, reason in outcome.rejected[:_SHOWN_MAX]:
        to_stderr(f"{where}: {reason}")
    if outcome.rejected_rows > _SHOWN_MAX:
        more = outcome.rejected_rows - _SHOWN_MAX
        to_stderr(f"... and {more:,} more (--rejected FILE keeps every one)")


def _say_withheld(outcome: Outcome) -> None:
    for said in sorted(outcome.withheld)[:_SHOWN_MAX]:
        to_stderr(f"not added: {shown(said)}")
    if outcome.withheld_sums > _SHOWN_MAX:
        to_stderr(f"... and {outcome.withheld_sums - _SHOWN_MAX:,} more (--json names them)")


def _print(outcome: Outcome, trust_of: TrustOf) -> None:
    page = Page()
    page.line(f"ledger {outcome.ledger_url}", "dim")
    _print_counts(page, outcome)
    if outcome.compared.all.rows:
        _print_owners(page, outcome)
        _print_places(page, outcome, trust_of)
        _print_differences(page, outcome)
        page.line()
        page.line(
            "next: costspan report --by owner,model; costspan report --unattributed; --json here"
            " has every model of every cause",
            "dim",
        )


def _print_counts(page: Page, outcome: Outcome) -> None:
    settled, left_out = outcome.settled, outcome.left_out.total()
    span = ""
    if outcome.first_ns is not None and outcome.last_ns is not None:
        span = f", of calls from {day(outcome.first_ns)} to {day(outcome.last_ns)}"
    took = f" in {outcome.seconds:,.0f} s" if outcome.seconds >= 1 else ""
    parts = f" from {len(outcome.files)} files" if len(outcome.files) > 1 else ""
    page.line(f"read {counted(outcome.rows, 'row')} of {outcome.kind}{parts}{took}{span}", "bold")
    for again, read in outcome.again:
        page.line(f"{shown(again)} is {shown(read)} once more: taken once", "yellow")
    conflicts = settled.conflicts + outcome.withheld_sums
    if settled.duplicates and not settled.observations and not conflicts:
        page.line(f"nothing new: {settled.duplicates:,} in the ledger already", "green")
    else:
        page.line(
            f"{settled.observations:,} new, {settled.duplicates:,} in the ledger already;"
            f" {counted(settled.events, 'event')} decided, {counted(settled.postings, 'posting')}"
        )
    if left_out or outcome.rejected_rows:
        page.line(f"{left_out:,} left out, {outcome.rejected_rows:,} rejected", "yellow")
    for reason, many in outcome.left_out.most_common(_SHOWN_MAX):
        page.line(f"  left out, {counted(many, 'row')}: {reason}")
    if settled.conflicts:
        page.line(
            f"{counted(settled.conflicts, 'conflict')}: a row that says otherwise than when it was"
            " ingested before (or other options); both are kept, one is believed",
            "yellow",
        )
    if outcome.withheld_sums:
        page.line(
            f"{counted(outcome.withheld_sums, 'conflict')}: sums that are others in the books, and"
            " are not added (parts of an export alone, or a day that has grown?)",
            "yellow",
        )
    compared = outcome.compared
    if compared.met:
        page.line(f"{counted(compared.met, 'row')} met a call that was recorded live: counted once")
    if outcome.flags:
        said = ", ".join(f"{flag} ({many:,})" for flag, many in sorted(outcome.flags.items()))
        page.line(f"kept, with a note: {said}", "yellow")
    if compared.unmatched:
        many = len(compared.unmatched)
        page.line(
            f"{many:,}{' or more' if many == UNMATCHED_MAX else ''} in no event: their response id"
            " is that of several calls",
            "yellow",
        )


def _print_owners(page: Page, outcome: Outcome) -> None:
    rows, whole = _owners(outcome), outcome.compared.all
    page.line()
    page.line("whose these rows are, and what they cost (USD)", "bold")
    tenants = [row for row in rows if not row["owner"].startswith("@")]
    others = [row for row in rows if row["owner"].startswith("@")]
    shown_rows = [*tenants[:_OWNERS_SHOWN], *others]
    table = [
        [
            row["owner"],
            row["bucket"],
            f"{row['rows']:,}",
            amount(row["ours"]),
            _unknown(row["unknown"]),
        ]
        for row in shown_rows
    ]
    footer: list[str | Text] = [
        "all",
        "",
        f"{whole.rows:,}",
        amount(format_usd(whole.ours)),
        _unknown(whole.unknown),
    ]
    columns = [Column("owner"), Column("bucket"), Column("rows", True), Column("cost USD", True),
               Column("unpriced", True)]  # fmt: skip
    page.table(columns, table, footer)
    if len(tenants) > _OWNERS_SHOWN:
        page.line(f"and {counted(len(tenants) - _OWNERS_SHOWN, 'tenant')} more", "dim")
    for each in _listed("reason", outcome.compared.unattributed):
        page.line(
            f"@unattributed, {counted(each['rows'], 'row')}, {each['ours']} USD: {each['reason']}",
            "yellow",
        )


def _unknown(many: int) -> str:
    return f"{many:,}" if many else ""


def _print_places(page: Page, outcome: Outcome, trust_of: TrustOf) -> None:
    looked = ", ".join(outcome.tenant_from)
    page.line(f"the tenant was looked for in {looked} (--tenant-from names other places)", "dim")
    for place, line in sorted(outcome.compared.places.items(), key=lambda each: -each[1].rows):
        page.line(f"  {place}: {counted(line.rows, 'row')}, {trust_of(place)}", "dim")


def _print_differences(page: Page, outcome: Outcome) -> None:
    held: dict[str, list[dict[str, Any]]] = {}
    for row in _differences(outcome):
        held.setdefault(row["cause"], []).append(row)
    page.line()
    page.line("what it said they cost (USD), beside the books, by cause", "bold")
    columns = [Column("cause"), Column("rows", True), Column("theirs", True),
               Column("ours", True), Column("ours-theirs", True), Column("models")]  # fmt: skip
    table = [[cause, *_line(_sum(outcome, cause)), _models(rows)] for cause, rows in held.items()]
    page.table(columns, table, ["all", *_line(outcome.compared.all), ""])
    for cause in held:
        if cause not in ("same", "rounding"):
            page.line(f"  {cause}: {CAUSES[cause]}", "dim")


def _sum(outcome: Outcome, cause: str) -> Line:
    whole = Line()
    for (each, _), line in outcome.compared.differences.items():
        if each == cause:
            whole.rows += line.rows
            whole.theirs += line.theirs
            whole.ours += line.ours
    return whole


def _line(line: Line) -> Sequence[Any]:
    amounts = _amounts(line)
    return [
        f"{line.rows:,}", amount(amounts["theirs"]), amount(amounts["ours"]),
        amount(amounts["difference"]),
    ]  # fmt: skip


def _models(rows: Iterable[dict[str, Any]]) -> str:
    names = [shown(row["model"]) for row in rows if row["model"]]
    more = f" and {len(names) - _MODELS_SHOWN} more" if len(names) > _MODELS_SHOWN else ""
    return ", ".join(names[:_MODELS_SHOWN]) + more
