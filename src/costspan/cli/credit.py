"""`costspan credit TENANT AMOUNT`: give a tenant money back for a month. The cost stays."""

from __future__ import annotations

import argparse

from costspan.cli.exits import OK, UsageError
from costspan.cli.hands import amount_of, hand_of, hand_options, now_ns, post, tenant_of
from costspan.cli.moments import period
from costspan.core.journal.records import FreeLine
from costspan.core.settle.free import ADJUSTMENT, free_postings


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `credit`."""
    parser.add_argument("tenant", metavar="TENANT")
    parser.add_argument("amount", metavar="AMOUNT", help="USD that the tenant is charged less")
    parser.add_argument("--period", metavar="YYYY-MM", required=True, help="the month it is for")
    hand_options(parser)


def run(options: argparse.Namespace) -> int:
    """Post the credit and say where."""
    tenant, amount = tenant_of(options.tenant), amount_of(options.amount)
    by, reason = hand_of(options)
    if amount <= 0:
        raise UsageError("a credit is more than nothing: costspan adjust charges more")
    record = free_postings(
        kind="credit",
        period=period(options.period),
        lines=[FreeLine(tenant, ADJUSTMENT, "credit", "", "", 0, -amount)],
        about={},
        by=by,
        reason=reason,
        recorded_at=now_ns(),
    )
    post(options, record, tenant)
    return OK
