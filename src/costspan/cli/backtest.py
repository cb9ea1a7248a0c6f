"""`costspan backtest`: score the ways to allocate where the truth is known."""

from __future__ import annotations

import argparse
import time
from fractions import Fraction
from typing import Any

from costspan.cli.allocate import read_rule
from costspan.cli.exits import OK, UsageError
from costspan.cli.moments import period
from costspan.cli.printing import Column, Page, amount, counted, print_json, to_stderr
from costspan.cli.progress import progress
from costspan.cli.settings import open_books, reader_settings_of
from costspan.core.allocate import AllocationError
from costspan.core.allocate.backtest import PROXIES, BackTest, Proxy, Tried, backtest
from costspan.core.money import PICO, format_usd, round_half_even
from costspan.core.periods import month_before, month_of

_MEANING = (
    (
        "WAPE",
        "the sum of all errors over the hidden cost: 0 is perfect; half of it is the share of",
    ),
    ("", "the money that the wrong tenant would have paid"),
    ("bias", "what was handed out too much in all: 0, or money was lost or made"),
    ("to small", "what tenants below the average would have paid too much (negative: too little)"),
    ("worst", "the tenant furthest off, and by how much (negative: it would have paid too little)"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `backtest`."""
    parser.add_argument("--period", metavar="YYYY-MM", help="default: the last month that is over")
    parser.add_argument(
        "--methods",
        metavar="NAMES",
        default=",".join(PROXIES),
        help="several with commas (default: %(default)s)",
    )
    parser.add_argument(
        "--rule", metavar="FILE", help="an allocation rule: `weighted` takes the weights of [every]"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")


def run(options: argparse.Namespace) -> int:
    """Print the scores, best first."""
    settings = reader_settings_of(options)
    month = period(options.period) if options.period else month_before(month_of(time.time_ns()))
    methods = _methods(options.methods)
    rule = read_rule(options.rule)
    with open_books(settings) as books:
        many = books.ledger.counts("events")["events"]
        try:
            with progress("measuring", "events", many) as tell:
                found = backtest(books.ledger, month, methods, rule, tell)
        except AllocationError as error:
            raise UsageError(str(error)) from error
        if options.json:
            to_stderr(f"ledger: {books.url}")
            print_json(plain(found))
        else:
            page = Page()
            page.line(f"ledger {books.url}, period {month}", "dim")
            _print(page, found)
    return OK


def _methods(text: str) -> tuple[Proxy, ...]:
    chosen: dict[Proxy, None] = {}
    known: dict[str, Proxy] = {name: name for name in PROXIES}
    for name in map(str.strip, text.split(",")):
        if name not in known:
            raise UsageError(f"there is no method {name!r} to test; there are {', '.join(PROXIES)}")
        chosen[known[name]] = None
    return tuple(chosen)


def plain(found: BackTest) -> dict[str, Any]:
    """As plain JSON values: ratios to six places, amounts decimal strings of USD."""
    return {
        "period": found.period,
        "tenants": found.tenants,
        "hidden_cost": format_usd(found.cost),
        "methods": [_plain(each) for each in found.tried],
    }


def _plain(each: Tried) -> dict[str, Any]:
    row: dict[str, Any] = {"method": each.method, "by": each.said}
    if each.score is None:
        return {**row, "score": None, "why": each.why}
    return {
        **row,
        "wape": six_places(each.score.wape),
        "bias": six_places(each.score.bias),
        "to_small": six_places(each.score.to_small),
        "worst": each.score.worst,
        "worst_error": format_usd(each.score.worst_error),
    }


def six_places(ratio: Fraction) -> str:
    """A ratio to six places, an exact half to the even one."""
    return format_usd(round_half_even(ratio * 10**6) * (PICO // 10**6))[:-6]


def _print(page: Page, found: BackTest) -> None:
    hidden = f"hidden: {format_usd(found.cost)} USD of {counted(found.tenants, 'tenant')}"
    page.line(f"{hidden}, direct and agent; then allocated by each method:")
    page.line()
    columns = [
        Column("method"),
        Column("by"),
        Column("WAPE", True),
        Column("bias", True),
        Column("to small", True),
        Column("worst tenant"),
        Column("off by USD", True),
    ]
    rows: list[list[Any]] = []
    for each in found.tried:
        if each.score is None:
            rows.append([each.method, each.said, "-", "-", "-", f"not tried: {each.why}", ""])
            continue
        score = each.score
        ratios = [six_places(ratio) for ratio in (score.wape, score.bias, score.to_small)]
        off = amount(format_usd(score.worst_error))
        rows.append([each.method, each.said, *ratios, score.worst, off])
    page.table(columns, rows)
    page.line()
    for name, meaning in _MEANING:
        page.line(f"{name:<9} {meaning}", "dim")
