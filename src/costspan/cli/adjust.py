"""`costspan adjust TENANT AMOUNT`: change what a tenant is charged for a month, by hand."""

from __future__ import annotations

import argparse

from costspan.cli.exits import OK, UsageError
from costspan.cli.hands import amount_of, hand_of, hand_options, now_ns, post, tenant_of
from costspan.cli.moments import period
from costspan.core.journal.records import FreeLine
from costspan.core.settle.free import ADJUSTMENT, free_postings

_SAME = ""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `adjust`."""
    parser.add_argument("tenant", metavar="TENANT")
    parser.add_argument(
        "amount", metavar="AMOUNT", help="USD more (or, with a -, less) that the tenant is charged"
    )
    parser.add_argument("--period", metavar="YYYY-MM", required=True, help="the month it is for")
    parser.add_argument(
        "--cost",
        metavar="AMOUNT",
        nargs="?",
        const=_SAME,
        help="change the cost of its work too: by so much (default: by the same amount)",
    )
    hand_options(parser)


def run(options: argparse.Namespace) -> int:
    """Post the adjustment and say where."""
    tenant, charge = tenant_of(options.tenant), amount_of(options.amount)
    by, reason = hand_of(options)
    cost = 0
    if options.cost is not None:
        cost = charge if options.cost == _SAME else amount_of(options.cost)
    if not charge and not cost:
        raise UsageError("an adjustment of nothing changes nothing")
    record = free_postings(
        kind="adjustment",
        period=period(options.period),
        lines=[FreeLine(tenant, ADJUSTMENT, None, "", "", cost, charge)],
        about={},
        by=by,
        reason=reason,
        recorded_at=now_ns(),
    )
    post(options, record, tenant)
    return OK
