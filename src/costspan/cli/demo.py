"""`costspan demo`: a real agent application, three tenants at once, and books that balance.

No key and no network: the one fake is the model provider, which keeps a truth ledger and writes an
invoice of its own.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costspan.cli.exits import BAD, OK, UsageError
from costspan.cli.printing import Column, Page, amount, print_json, to_stderr
from costspan.cli.surroundings import unwritable
from costspan.core.money import format_usd, parse_usd
from costspan.core.prices import undated

if TYPE_CHECKING:
    from costspan.conformance.demo.run import Played

DEFAULT = "costspan-demo.db"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--json", action="store_true", help="print the books as JSON")


def run(options: argparse.Namespace) -> int:
    """Play the demo and print the books.

    Raises:
        UsageError: if the ledger's place is taken by something else, or an extra is missing.
    """
    ledger = Path(getattr(options, "ledger", None) or DEFAULT)
    _clear(ledger)
    page = Page()
    tell = to_stderr if options.json else page.line
    began = time.monotonic()

    def step(text: str) -> None:
        tell(f"  {time.monotonic() - began:5.1f} s  {text}")

    tell("costspan demo: one agent application, three tenants, no key, no network")
    step("loading litellm, langchain and starlette")
    played = _play(ledger, step)
    totals = played.books.totals(by="owner,bucket")
    invoiced = sum(line.amount_pico for line in played.invoice)
    balanced = bool(totals["balanced"]) and parse_usd(totals["totals"]["cost"]) == invoiced
    if options.json:
        print_json({**totals, "invoice": format_usd(invoiced), "balanced": balanced})
    else:
        _print(page, played, totals, invoiced, balanced, ledger)
    played.books.close()
    return OK if balanced else BAD


def _play(ledger: Path, step: Any) -> Played:
    # LiteLLM would fetch its price list from the network when imported.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LANGSMITH_TRACING", "false")
    warnings.simplefilter("ignore")  # those of the hosts' libraries, about each other
    try:
        from costspan.conformance.demo.run import play
    except ModuleNotFoundError as error:
        raise UsageError(f"the demo needs {error.name}: pip install 'costspan[demo]'") from error
    return play(ledger, step)


def _clear(ledger: Path) -> None:
    """Make room for a fresh ledger; only what an earlier demo left is removed."""
    if not ledger.exists():
        if why := unwritable(ledger.parent):
            raise UsageError(f"no ledger can be made at {ledger}: {why}")
        return
    if not ledger.is_file():
        raise UsageError(f"{ledger} is no file: name another with --ledger")
    with ledger.open("rb") as file:
        is_sqlite = file.read(16) in (b"", b"SQLite format 3\0")
    if is_sqlite:
        with sqlite3.connect(ledger) as connection:
            found = connection.execute(
                "SELECT count(*), sum(name = 'postings') FROM sqlite_master"
            ).fetchone()
            by_demo = found[0] == 0 or (
                bool(found[1])
                and connection.execute(
                    "SELECT count(*) FROM price_books WHERE name = 'demo-contract'"
                ).fetchone()[0]
            )
        connection.close()
        if by_demo:
            for suffix in ("", "-wal", "-shm"):
                ledger.with_name(ledger.name + suffix).unlink(missing_ok=True)
            return
    raise UsageError(
        f"{ledger} exists and was not made by the demo; it was left alone:"
        " name another file with --ledger"
    )


def _print(
    page: Page,
    played: Played,
    totals: dict[str, Any],
    invoiced: int,
    balanced: bool,
    ledger: Path,
) -> None:
    page.line()
    page.line("The bill, per tenant and bucket (USD)", "bold")
    _print_bill(page, totals)
    page.line()
    page.line("The platform's own pool, and what nobody owns (USD)", "bold")
    _print_pools(page, played)
    page.line()
    page.line("The provider's invoice beside the ledger (USD)", "bold")
    _print_invoice(page, played, invoiced)
    page.line()
    sums = totals["totals"]
    tenants = (
        parse_usd(sums["cost"]) - parse_usd(sums["platform"]) - parse_usd(sums["unattributed"])
    )
    verdict = "balanced, to the pico-dollar" if balanced else "NOT BALANCED"
    page.line(
        f"tenants {format_usd(tenants)} + platform {sums['platform']}"
        f" + unattributed {sums['unattributed']} = {sums['cost']},"
        f" the invoice says {format_usd(invoiced)}: {verdict}",
        "bold green" if balanced else "bold red",
    )
    page.line()
    page.line("Why one request cost what it cost: the one whose model was down", "bold")
    _print_explanation(page, played)
    page.line()
    page.line(f"The books are in {ledger}. Look further:")
    page.line(f"  costspan report --ledger {ledger} --by owner,model")
    page.line(f"  costspan explain --ledger {ledger} initech-1")


def _print_bill(page: Page, totals: dict[str, Any]) -> None:
    bill: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in totals["rows"]:
        if not row["owner"].startswith("@") and row["cost"] is not None:
            line = bill[row["owner"]]
            line[row["bucket"]] += parse_usd(row["cost"])
            line["cost"] += parse_usd(row["cost"])
            line["charge"] += parse_usd(row["charge"])
    columns = ["direct", "agent", "cost", "charge"]
    rows = [[tenant, *(_usd(line[c]) for c in columns)] for tenant, line in sorted(bill.items())]
    whole = [_usd(sum(line[column] for line in bill.values())) for column in columns]
    page.table(
        [
            Column("tenant"),
            Column("direct work", True),
            Column("agent work", True),
            Column("cost", True),
            Column("charged", True),
        ],
        rows,
        ["all tenants", *whole],
    )
    above = [tenant for tenant, line in sorted(bill.items()) if line["charge"] > line["cost"]]
    for tenant in above:
        page.line(
            f"{tenant} is charged more than it cost: a cheaper model stood in for the one it asked"
            ' for (rule C5; fallback_charge = "executed" or "min" would change that)',
            "yellow",
        )


def _print_pools(page: Page, played: Played) -> None:
    found = played.books.totals(by="owner,pool")
    rows = [
        [row["owner"], row["pool"] or "no owner was found", str(row["events"]), amount(row["cost"])]
        for row in found["rows"]
        if row["owner"].startswith("@")
    ]
    page.table(
        [Column("owner"), Column("pool"), Column("events", True), Column("cost", True)], rows
    )


def _print_invoice(page: Page, played: Played, invoiced: int) -> None:
    billed: dict[str, int] = defaultdict(int)
    booked: dict[str, int] = defaultdict(int)
    for line in played.invoice:
        billed[undated((line.line_item or "").partition(",")[0])] += line.amount_pico
    for row in played.books.totals(by="model")["rows"]:
        booked[undated(row["model"])] += parse_usd(row["cost"] or "0")
    rows = [
        [model, _usd(billed[model]), _usd(booked[model]), _usd(booked[model] - billed[model])]
        for model in sorted(billed.keys() | booked.keys())
        if billed[model] or booked[model]
    ]
    total = sum(booked.values())
    page.table(
        [
            Column("model"),
            Column("invoice", True),
            Column("ledger", True),
            Column("difference", True),
        ],
        rows,
        [f"{played.requests} requests", _usd(invoiced), _usd(total), _usd(total - invoiced)],
    )


def _print_explanation(page: Page, played: Played) -> None:
    from costspan.cli.explain import print_explanation

    events = played.books.events()
    request = next(e["request_id"] for e in events if "charged_above_cost" in e.get("flags", ()))
    print_explanation(page, played.books.explain(request))


def _usd(pico: int) -> Any:
    return amount(format_usd(pico))
