"""A reconciliation as tables for finance, as JSON and as rows of a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from costspan.cli.printing import Block, Column, Page, amount, counted, joined, shown, text_of
from costspan.core.invoices.invoice import Invoice
from costspan.core.money import format_usd
from costspan.core.reconcile import Grain, Reconciliation, Reviewed, Total, Variance
from costspan.core.reconcile import plain as plain_variance
from costspan.core.reconcile.review import FOUND_BY
from costspan.core.reconcile.variance import APART, KINDS, Cause

HEADINGS = (
    *("id", "state", "over_threshold", "provider", "account", "day", "model", "item", "what"),
    *("currency", "ledger", "invoice", "difference", "unexplained", "cause", "cause_amount"),
    *("cause_text", "reviewed_by", "note"),
)
_IDS_SHOWN = 3


def plain(found: Reconciliation, said: Reviewed, posted: int) -> dict[str, Any]:
    """Everything as plain JSON values."""
    return {
        "period": found.period,
        "rule": found.authority.sha256,
        "documents": [
            {
                **_document(each.invoice, each.provider),
                "empty": each.is_empty,
                "brought_whole": each in found.whole,
            }
            for each in (*found.documents, *found.whole)
        ],
        "left_out": [
            {**_document(each.invoice, each.provider), "instead": each.instead.id}
            for each in found.left_out
        ],
        "totals": [_total(each) for each in found.totals],
        "variances": [
            {**plain_variance(each), **_review(each, said), "stands": said.stands(each)}
            for each in found.variances
        ],
        "gone": [
            {"id": each.variance, "state": each.state, "by": each.by, "note": each.note}
            for each in said.gone
        ],
        "standing": sum(map(said.stands, found.variances)),
        "events_of_no_invoice": found.unplaced,
        "adjustments_posted": posted,
    }


def _document(invoice: Invoice, provider: str) -> dict[str, Any]:
    return {
        "id": invoice.id,
        "source": invoice.source,
        "provider": provider,
        "account": invoice.account,
        "version": invoice.version,
        "currency": invoice.currency or None,
        "provisional": invoice.is_provisional,
    }


def left_out(found: Reconciliation) -> Iterator[str]:
    """A line for each document that is not compared: what counts instead, and what to do."""
    for each in found.left_out:
        names = [
            f"{one.source} {each.provider} {one.account or '(one account)'} version {one.version}"
            for one in (each.invoice, each.instead)
        ]
        yield (
            f"left out: {names[0]}, id {each.invoice.id[:12]}. {names[1]} comes first and may bill"
            " the same; if it does not, import both with --account"
        )


def _total(total: Total) -> dict[str, Any]:
    ours, theirs = total.ledger, total.invoice
    return {
        "provider": total.provider,
        "account": total.account,
        "currency": total.currency,
        "counts": total.counts,
        "requests": [ours.requests, theirs.requests] if total.has_requests else None,
        "tokens": [ours.tokens, theirs.tokens] if total.has_tokens else None,
        "ledger": format_usd(ours.money),
        "invoice": format_usd(theirs.money) if total.has_money else None,
        "difference": format_usd(total.difference),
        "explained": format_usd(total.explained),
        "unexplained": format_usd(total.difference - total.explained),
        "adjusted": format_usd(total.adjusted),
        "apart": {name: format_usd(pico) for name, pico in total.apart.items()},
    }


def _review(variance: Variance, said: Reviewed) -> dict[str, Any]:
    review = said.latest.get(variance.id)
    return {
        "state": said.state(variance),
        "reviewed_by": review.by if review else None,
        "note": review.note if review else None,
    }


def rows(found: Reconciliation, said: Reviewed) -> Iterator[Sequence[object]]:
    """A row for each cause of each variance; one row where none was found."""
    for each in found.variances:
        plain = {**plain_variance(each), **_review(each, said)}
        head = [plain[name] for name in HEADINGS[: HEADINGS.index("cause")]]
        tail = [plain["reviewed_by"], plain["note"]]
        causes = [(one.kind, each.said(one.amount), one.text) for one in each.causes]
        if each.unexplained or not causes:
            causes.append(("unexplained", each.said(each.unexplained), ""))
        for cause in causes:
            yield [*head, *cause, *tail]


def show(page: Page, found: Reconciliation, said: Reviewed, *, everything: bool) -> None:
    """Totals first, then the variances with their causes."""
    _documents(page, found)
    for total in found.totals:
        _show_total(page, total)
    grains = {each.grain for each in found.variances if everything or _is_shown(each, said)}
    chosen = [each for each in found.variances if each.grain in grains]
    if chosen:
        page.line()
        page.tree([_block(each, said) for each in _by_grain(chosen)])
    if everything:
        for review in said.gone:
            page.line(
                f"gone  {review.variance}  {review.state} by {review.by}: {review.note}", "dim"
            )
    _end(page, found, said, len(found.variances) - len(chosen))


def _by_grain(variances: Sequence[Variance]) -> list[list[Variance]]:
    grains: dict[Grain, list[Variance]] = {}
    for each in variances:
        grains.setdefault(each.grain, []).append(each)
    return list(grains.values())


def _is_shown(variance: Variance, said: Reviewed) -> bool:
    """What needs a person, and what an invoice says beside usage."""
    is_done = said.state(variance) in ("accepted", "resolved")
    return (variance.is_over_threshold and not is_done) or variance.what in APART


def _documents(page: Page, found: Reconciliation) -> None:
    for each in (*found.documents, *found.whole):
        invoice = each.invoice
        text = f"{invoice.source} {each.provider} {invoice.account or '(one account)'}"
        text += f" version {invoice.version}, imported by {invoice.by}, id {invoice.id[:12]}"
        text += ", still provisional" if invoice.is_provisional else ""
        text += ", bills nothing (yet)" if each.is_empty else ""
        text += ", brought into the books whole" if each in found.whole else ""
        page.line(text, "dim")
    for text in left_out(found):
        page.line(text, "yellow")


def _show_total(page: Page, total: Total) -> None:
    name = " ".join(part for part in (total.provider, total.account) if part)
    page.line()
    page.line(f"{name}: the {total.counts}'s total counts", "bold")
    columns = [
        Column("what"),
        *(Column(name, True) for name in ("books", "invoice", "difference", "unexplained")),
    ]
    lines: list[list[str | Text]] = []
    for at, what in enumerate(("requests", "tokens")):
        ours, theirs = total.ledger[at], total.invoice[at]
        if (total.has_requests, total.has_tokens)[at]:
            lines.append([what, f"{ours:,}", f"{theirs:,}", f"{theirs - ours:+,}", ""])
    money = [total.ledger.money, total.invoice.money, total.difference]
    rest = total.difference - total.explained
    if total.has_money:
        said: list[str | Text] = [amount(format_usd(pico)) for pico in [*money, rest]]
    else:
        said = [amount(format_usd(total.ledger.money)), "no costs kept: import them", "", ""]
    lines.append([f"usage {total.currency}", *said])
    for category, pico in sorted(total.apart.items()):
        lines.append([category, "", amount(format_usd(pico)), "", ""])
    if total.apart:
        whole = total.invoice.money + sum(total.apart.values())
        lines.append(["to pay", "", amount(format_usd(whole)), "", ""])
    if total.adjusted:
        books = total.ledger.money + total.adjusted
        left = total.invoice.money - books
        lines.append(["adjusted", amount(format_usd(total.adjusted)), "", "", ""])
        lines.append(
            [
                "books, adjusted",
                *(amount(format_usd(x)) for x in (books, total.invoice.money, left)),
                "",
            ]
        )
    page.table(columns, lines)


def _block(many: Sequence[Variance], said: Reviewed) -> Block:
    """The variances of one grain: what differs, then why, each cause once with all its amounts."""
    grain = many[0].grain
    place = (grain.day or "the month", grain.account, grain.model, grain.item)
    head = joined(*(Text(shown(part), "bold") for part in place if part))
    lines = [(each.what, _difference(each, said)) for each in many]
    causes: dict[tuple[str, str], list[tuple[Variance, Cause]]] = {}
    for each in many:
        for cause in each.causes:
            causes.setdefault((cause.kind, cause.text), []).append((each, cause))
    lines += [("because", _cause(found)) for found in causes.values()]
    rest = [_amount(each, each.unexplained) for each in many if each.unexplained]
    if rest:
        lines.append(("left", joined(*rest, Text("unexplained", "red"), by=", ")))
    for each in many:
        review = said.latest.get(each.id)
        if review is not None and review.by != FOUND_BY:
            text = f"{each.what}: {review.state} by {review.by}: {review.note}"
            lines.append(("review", text_of(text)))
    return Block(head, lines, [])


def _difference(variance: Variance, said: Reviewed) -> Text:
    share = variance.share
    whole = "" if share is None else f"({(share * 100).normalize():+f} % of the invoice)"
    state: str | Text = ""
    if said.stands(variance):
        state = Text("OVER THE THRESHOLD", "bold red")
    elif variance.is_over_threshold or variance.id in said.latest:
        state = Text(said.state(variance), "green")
    return joined(
        joined("books", _said(variance, variance.ledger), by=" "),
        joined("invoice", _said(variance, variance.invoice), by=" "),
        joined("difference", _said(variance, variance.difference), whole, by=" "),
        state,
        Text(variance.id, "dim"),
    )


def _cause(found: Sequence[tuple[Variance, Cause]]) -> Text:
    amounts = [_amount(variance, cause.amount) for variance, cause in found]
    _, cause = found[-1]
    evidence = cause.evidence
    text = f"{KINDS[cause.kind]}: {cause.text}"
    if evidence.events:
        text += _named("event", evidence.events, evidence.events_count)
    elif evidence.lines:
        names = [_line(name) for name in evidence.lines]
        text += _named("invoice line", names, evidence.lines_count)
    return joined(joined(*amounts, by=", "), text)


def _named(what: str, names: Sequence[str], many: int) -> str:
    first = names[:_IDS_SHOWN]
    more = f" and {many - len(first):,} more" if many > len(first) else ""
    return f" [{what} {', '.join(first)}{more}]"


def _amount(variance: Variance, value: int) -> Text:
    """An amount with its unit."""
    if variance.is_money:
        return _said(variance, value)
    return Text(f"{value:+,} {variance.what}")


def _line(name: str) -> str:
    invoice, _, number = name.partition(":")
    return f"{invoice[:12]}:{number}"


def _said(variance: Variance, value: int) -> Text:
    if not variance.is_money:
        return Text(f"{value:,}")
    return joined(amount(format_usd(value)), variance.currency, by=" ")


def _end(page: Page, found: Reconciliation, said: Reviewed, hidden: int) -> None:
    page.line()
    if found.unplaced:
        page.line(
            f"{counted(found.unplaced, 'event')} of providers that no invoice here is of", "dim"
        )
    if hidden:
        page.line(f"{counted(hidden, 'variance')} small or settled: --all lists them", "dim")
    standing = sum(map(said.stands, found.variances))
    if standing:
        page.line(
            f"{counted(standing, 'variance')} over the threshold that nobody reviewed: review with"
            " --review ID --state accepted --by NAME --note TEXT, or --adjust",
            "bold red",
        )
    else:
        page.line("no variance over the threshold stands unreviewed", "green")
