"""`costspan assign EVENT TENANT`: say whose an event is, above all that was observed."""

from __future__ import annotations

import argparse
from typing import Any

from costspan.cli.exits import OK, UsageError
from costspan.cli.hands import WAIT_SECONDS, hand_of, hand_options, now_ns, tenant_of
from costspan.cli.printing import Page, print_json, shown, to_stderr
from costspan.cli.settings import open_books, reader_settings_of
from costspan.core.config import Config
from costspan.core.journal.records import Assignment
from costspan.core.read import words
from costspan.core.read.books import Books
from costspan.core.read.corrections import Entry
from costspan.core.read.explain import Explained, Explanation
from costspan.core.settle import Report, settle
from costspan.core.settle.corrections import names_of
from costspan.core.settle.settlement import Settlement

_IDS_TOLD_MAX = 8


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `assign`."""
    parser.add_argument(
        "event",
        metavar="EVENT",
        help="an attempt, operation or response id, or any other that names one event alone",
    )
    parser.add_argument("tenant", metavar="TENANT")
    hand_options(parser)


def run(options: argparse.Namespace) -> int:
    """Assign the event, settle at once, and say what changed."""
    tenant = tenant_of(options.tenant)
    by, reason = hand_of(options)
    settings = reader_settings_of(options)
    with open_books(settings) as books:
        event_id = _one_event(books, options.event)
        before = _node(books.explain(event_id), event_id)
        report = _assign(books, settings, event_id, Assignment(event_id, tenant, by, reason, 0))
        after = _node(books.explain(event_id), event_id)
        url = books.url
    if options.json:
        to_stderr(f"ledger: {url}")
        print_json(_plain(before, after, report, tenant, by, reason))
    else:
        page = Page()
        page.line(f"ledger {url}", "dim")
        _print(page, before, after, report)
    return OK


def _one_event(books: Books, name: str) -> str:
    """The id of the only event of this name.

    Raises:
        NotFound: if there is none.
        UsageError: if there are several.
    """
    found = books.named(name)
    if len(found) > 1:
        some = ", ".join(found[:_IDS_TOLD_MAX]) + (", ..." if len(found) > _IDS_TOLD_MAX else "")
        raise UsageError(
            f"{shown(name)} names {words.counted(len(found), 'event')}: assign one at a time"
            f" ({shown(some)})"
        )
    return found[0]


def _assign(books: Books, settings: Config, event_id: str, said: Assignment) -> Report:
    with books.ledger.settling(WAIT_SECONDS) as settlement:
        at = max(now_ns(), _last(settlement, event_id) + 1)
        record = Assignment(said.event, said.tenant, said.by, said.reason, at)
        return settle(settlement, [], [record], settings.gateways)


def _last(settlement: Settlement, event_id: str) -> int:
    """When the event was assigned last: the latest counts, whatever a clock says."""
    each = settlement.settled([event_id]).get(event_id)
    names = {event_id} if each is None else names_of(each.event)
    found = settlement.assignments(names)
    return max((record.recorded_at for record in found.values()), default=0)


def _node(found: Explanation, event_id: str) -> Explained:
    waiting = list(found.roots)
    while waiting:
        node = waiting.pop()
        if node.id == event_id:
            return node
        waiting += node.below
    raise LookupError(event_id)  # pragma: no cover -- an explanation holds what it was asked for


def _new(before: Explained, after: Explained) -> tuple[Entry, ...]:
    return after.postings[len(before.postings) :]


def _plain(
    before: Explained, after: Explained, report: Report, tenant: str, by: str, reason: str
) -> dict[str, Any]:
    def said(node: Explained) -> dict[str, Any]:
        decision = node.decision
        owner = None if decision is None else decision.owner
        bucket = None if decision is None else decision.bucket
        return {"owner": owner, "bucket": bucket, "cost": node.cost, "charge": node.charge}

    return {
        "event": after.id,
        "tenant": tenant,
        "by": by,
        "reason": reason,
        "before": said(before),
        "after": said(after),
        "headline": after.headline,
        "posted": [
            {
                "owner": each.owner,
                "bucket": each.bucket,
                "cost": each.cost,
                "charge": each.charge,
                "period": each.effective_period,
                "posted_period": each.posted_period,
            }
            for each in _new(before, after)
        ],
        "events_decided": report.events,
        "postings": report.postings,
    }


def _print(page: Page, before: Explained, after: Explained, report: Report) -> None:
    posted = _new(before, after)
    page.line(f"was: {before.headline}", "dim")
    page.line(f"now: {after.headline}", "bold")
    for each in posted:
        late = f" ({each.effective_period} is closed)" if each.is_late else ""
        amounts = f"cost {words.trimmed(each.cost)}, charge {words.trimmed(each.charge)} USD"
        page.line(f"posted in {each.posted_period}{late}: {each.owner} {each.bucket} {amounts}")
    if not posted:
        page.line("nothing had to be posted: the assignment is kept, and holds from now on")
    others = report.events - 1
    if others > 0 and report.postings > len(posted):
        more = report.postings - len(posted)
        page.line(f"and {words.counted(more, 'posting')} of events that take their owner from it")
    page.line(f"costspan explain {after.id}", "dim")
