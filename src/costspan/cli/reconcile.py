"""`costspan reconcile`: the books beside the invoices."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from costspan.cli import reconciled
from costspan.cli.exits import NOT_FOUND, OK, VARIANCE, UsageError
from costspan.cli.moments import period
from costspan.cli.printing import Page, counted, print_csv, print_json, shown, to_stderr
from costspan.cli.progress import progress
from costspan.cli.settings import open_books, reader_settings_of
from costspan.core import hooks
from costspan.core.invoices.invoice import STATES, Review
from costspan.core.prices.names import canonical_provider
from costspan.core.read.books import Books, NotFound
from costspan.core.reconcile import (
    Authority,
    Reconciliation,
    adjustments,
    announce,
    keep,
    reconcile,
    reviewed,
)
from costspan.core.reconcile.authority import load
from costspan.core.settle import settle

_WAIT_SECONDS = 30
_COMPARED = ("requests", "tokens", "money")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `reconcile`."""
    parser.add_argument("period", metavar="YYYY-MM", help="the month (UTC)")
    parser.add_argument("--provider", metavar="NAME", help="this provider alone")
    parser.add_argument("--account", metavar="NAME", help="this account alone, as invoices name it")
    parser.add_argument("--rule", metavar="FILE", type=Path, help="TOML of the authority rule")
    parser.add_argument(
        "--all", action="store_true", help="also what is under the threshold, reviewed or gone"
    )
    review = parser.add_argument_group("review a variance")
    review.add_argument(
        "--review", metavar="ID", nargs="+", help="ids of variances, or how they begin"
    )
    review.add_argument("--state", choices=STATES, help="what is decided about it")
    review.add_argument("--note", metavar="TEXT", help="why")
    adjust = parser.add_argument_group("bring the books to the invoices")
    adjust.add_argument(
        "--adjust", action="store_true", help="post what is missing, as the rule says"
    )
    adjust.add_argument("--reason", metavar="TEXT", help="why")
    parser.add_argument("--by", metavar="NAME", help="who reviews or adjusts")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document")
    form.add_argument("--csv", action="store_true", help="the variances, for a spreadsheet")


def run(options: argparse.Namespace) -> int:
    """Print the comparison; 3 if a variance over the threshold stands that nobody reviewed."""
    _check(options)
    rule = load(options.rule) if options.rule else Authority()
    month = period(options.period)
    with open_books(reader_settings_of(options)) as books:
        found = _compare(books, month, rule, options)
        if not found.documents and not found.whole:
            to_stderr(
                f"no invoice of {month} is kept in {books.url}: costspan invoices import brings one"
            )
            return NOT_FOUND
        if options.json or options.csv or options.account is not None:
            for text in reconciled.left_out(found):
                to_stderr(text)
        if not _has_account(found, options.account):
            raise NotFound(
                f"no account {shown(str(options.account))!r} in the invoices or the books of"
                f" {month}: costspan reconcile without --account names them"
            )
        store = books.ledger.invoices
        news = announce(store, found.variances, time.time_ns())
        if options.review:
            keep(
                store,
                found.variances,
                options.review,
                state=options.state,
                by=options.by,
                note=options.note,
                at=time.time_ns(),
            )
        posted = 0
        if options.adjust:
            posted = _adjust(books, month, rule, options)
            found = _compare(books, month, rule, options)
        said = reviewed(store, month, found.variances)
        standing = [each for each in found.variances if said.stands(each)]
        if options.json:
            to_stderr(f"ledger: {books.url}")
            print_json(reconciled.plain(found, said, posted))
        elif options.csv:
            to_stderr(f"ledger: {books.url}")
            print_csv(reconciled.HEADINGS, reconciled.rows(found, said))
        else:
            page = Page()
            page.line(f"ledger {books.url}, {month}", "dim")
            reconciled.show(page, found, said, everything=options.all)
            if options.adjust:
                page.line(
                    f"posted {posted} adjustment(s) to the books"
                    if posted
                    else "nothing to adjust: the books are what is billed already"
                )
        _tell_failures(news)
    return VARIANCE if standing else OK


def _check(options: argparse.Namespace) -> None:
    if options.review and options.adjust:
        raise UsageError("--review and --adjust are two steps: run one, then the other")
    if options.review and not (options.state and options.by and options.note):
        raise UsageError("--review needs --state, --by and --note")
    if (options.state or options.note) and not options.review:
        raise UsageError("--state and --note say something of a variance: name it with --review")
    if options.adjust and not (options.by and options.reason):
        raise UsageError("--adjust needs --by and --reason: every hand that moves money has a name")
    if options.adjust and options.account:
        raise UsageError("--adjust is for whole providers: leave --account out")
    if options.by and not (options.review or options.adjust):
        raise UsageError("--by goes with --review or --adjust")


def _compare(
    books: Books, month: str, rule: Authority, options: argparse.Namespace
) -> Reconciliation:
    many = books.ledger.counts("events")["events"]
    with progress("reconciling", "events", many) as tell:
        return reconcile(
            books.ledger,
            month,
            rule,
            provider=canonical_provider(options.provider),
            account=options.account,
            tell=tell,
        )


def _has_account(found: Reconciliation, account: str | None) -> bool:
    """Whether either side knows the account that was asked for."""
    billed = {each.invoice.account for each in (*found.documents, *found.whole)}
    return account is None or account in billed or bool(found.totals)


def _adjust(books: Books, month: str, rule: Authority, options: argparse.Namespace) -> int:
    """Post what is missing; what it settles is reviewed thereby. Returns how many records.

    Compared under the settler's lease: nobody else may adjust, and nothing may come, in between.
    """
    ledger, now_ns = books.ledger, time.time_ns()
    with ledger.settling(_WAIT_SECONDS) as settlement:
        found = _compare(books, month, rule, options)
        said = reviewed(ledger.invoices, found.period, found.variances)
        disputed = {
            each.grain
            for each in found.variances
            if each.what in _COMPARED and said.state(each) == "disputed"
        }
        with progress("adjusting", "events", ledger.counts("events")["events"]) as tell:
            records = adjustments(
                ledger, found, by=options.by, reason=options.reason, at=now_ns,
                disputed=disputed, tell=tell,
            )  # fmt: skip
        settle(settlement, [], records)
    if disputed:
        to_stderr(f"{counted(len(disputed), 'difference')} not adjusted: disputed by a review")
    if any(each.invoice.is_provisional for each in found.documents):
        to_stderr("an invoice is still provisional: import it again later, and adjust again")
    if any(each.is_money and each.is_empty for each in found.documents):
        to_stderr("an invoice bills nothing: if it is not written yet, import and adjust again")
    for variance in found.variances:
        terms = found.authority.rule(variance.grain.provider, variance.grain.account)
        if said.stands(variance) and variance.what in _COMPARED and terms.totals == "provider":
            note = f"adjusted: {options.reason}"
            ledger.invoices.keep_review(
                Review(variance=variance.id, state="resolved", by=options.by, note=note, at=now_ns)
            )
    return len(records)


def _tell_failures(news: int) -> None:
    """Whoever waits for an alert that could not be sent must not wait in silence."""
    failures: list[Any] = [each for each in hooks.problems if each.hook == "variance_found"]
    for each in failures if news else []:
        to_stderr(f"alert not sent by plugin {each.plugin}: {each.error}; the next run tries again")
