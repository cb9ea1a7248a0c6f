"""`costspan ingest litellm-spendlogs|langfuse|focus`: rows of another system, into the books.

Reading the same rows twice changes nothing. Every row is in the report: it is new, was there
already, was left out, or was rejected, and where. Several files are one export.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TextIO, TypeVar

from costspan.cli import backfill_sums
from costspan.cli.backfill_compared import compare_all
from costspan.cli.backfill_outcome import Outcome
from costspan.cli.backfill_report import print_outcome
from costspan.cli.backfill_source import MODULES, opened
from costspan.cli.exits import BAD, OK, UsageError
from costspan.cli.progress import progress
from costspan.cli.settings import settings_of
from costspan.core.backfill.claim import Claim, LeftOut, Rejected
from costspan.core.backfill.waiting import Waiting
from costspan.core.config import Config
from costspan.core.drain import RECORDS_PER_SETTLEMENT, add_observations
from costspan.core.ledger_errors import LedgerError
from costspan.core.ledger_urls import shown_url
from costspan.plugins.backfill import focus, langfuse, litellm
from costspan.plugins.backfill.parts import Parts
from costspan.plugins.backfill.placed import Placed

KINDS = tuple(MODULES)
"""What `ingest` reads besides its own format."""

_ROWS_TOLD = 1000
_T = TypeVar("_T")
Converter = Callable[[dict[str, object]], Claim]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ingest` that only these sources know."""
    parser.add_argument(
        "--tenant-from",
        metavar="WHERE",
        help="a column, or metadata.KEY; several with commas, best first. Default: "
        + "; ".join(f"{name}: {','.join(MODULES[name].TENANT_FROM)}" for name in KINDS),
    )
    parser.add_argument(
        "--by-row",
        action="store_true",
        help="litellm-spendlogs: each row is a call of its own, whatever call id it names. Only"
        " where no live record of these calls exists: it would be a second one",
    )
    parser.add_argument(
        "--csv", action="store_true", help="the differences by cause and model, for a spreadsheet"
    )


def run(options: argparse.Namespace) -> int:
    """Ingest; 1 if a row was rejected (the others went in)."""
    if options.json and options.csv:
        raise UsageError("--json and --csv are two formats: choose one")
    settings = settings_of(options)
    kind: str = options.file
    module, began = MODULES[kind], time.monotonic()
    tenant_from = _tenant_from(kind, options)
    parts, rows = opened(kind, options.source)
    outcome = Outcome(kind, parts, shown_url(settings.ledger_url), tenant_from)
    with ExitStack() as stack:
        put_aside: TextIO | None = None
        if options.rejected is not None:
            _refuse_overwriting(options.rejected, parts)
            put_aside = stack.enter_context(
                options.rejected.open("w", encoding="utf-8", errors="surrogateescape")
            )
        waiting = stack.enter_context(Waiting())
        converter = _converter(kind, tenant_from, options)
        if kind == "focus":
            with progress("reading", "rows") as tell:
                claims = _claims(_told(rows, tell), converter, outcome, put_aside)
                claims = backfill_sums.sums_of(claims, settings, outcome)
            with progress("ingesting", "sums") as tell:
                _ingest(settings, _told(claims, tell), outcome, waiting)
        else:
            with progress("ingesting", "rows") as tell:
                claims = _claims(_told(rows, tell), converter, outcome, put_aside)
                _ingest(settings, claims, outcome, waiting)
        with progress("comparing", "rows", waiting.rows) as tell:
            compare_all(settings.ledger_url, module.SOURCE, waiting, outcome.compared, tell)
    outcome.seconds = time.monotonic() - began
    print_outcome(outcome, module.trust_of, as_json=options.json, as_csv=options.csv)
    return BAD if outcome.rejected_rows else OK


def _refuse_overwriting(rejected: Path, parts: Parts) -> None:
    for path in (*parts.files, *(copy for copy, _ in parts.again)):
        if rejected.exists() and rejected.samefile(path):
            raise UsageError(f"--rejected {rejected} is a file that is ingested: name another")


def _tenant_from(kind: str, options: argparse.Namespace) -> Sequence[str]:
    module = MODULES[kind]
    if options.by_row and kind != "litellm-spendlogs":
        raise UsageError("--by-row is for litellm-spendlogs")
    named = [each.strip() for each in (options.tenant_from or "").split(",") if each.strip()]
    for each in named:
        known = each in module.KNOWN_FROM or any(
            prefix.endswith((".", "_")) and each.startswith(prefix) and each != prefix
            for prefix in module.KNOWN_FROM
        )
        if not known:
            places = ", ".join(f"{n}KEY" if n[-1] in "._" else n for n in module.KNOWN_FROM)
            raise UsageError(f"--tenant-from {each}: {kind} knows {places}")
    return named or module.TENANT_FROM


def _converter(kind: str, tenant_from: Sequence[str], options: argparse.Namespace) -> Converter:
    if kind == "litellm-spendlogs":
        return litellm.Converter(tenant_from, by_row=options.by_row)
    return langfuse.Converter(tenant_from) if kind == "langfuse" else focus.Converter(tenant_from)


def _told(each: Iterator[_T], tell: Callable[[int], None]) -> Iterator[_T]:
    for number, one in enumerate(each, 1):
        if number % _ROWS_TOLD == 0:
            tell(number)
        yield one


def _claims(
    rows: Iterator[Placed], converter: Converter, outcome: Outcome, put_aside: TextIO | None
) -> Iterator[Claim]:
    for where, row in rows:
        outcome.rows += 1
        try:
            if not isinstance(row, dict):
                outcome.torn_rows += isinstance(row, Rejected)
                raise row
            claim = converter(row)
        except LeftOut as reason:
            outcome.left_out[str(reason)] += 1
            continue
        except Rejected as reason:
            outcome.reject(where, str(reason))
            if put_aside is not None:
                raw = json.dumps(row, default=str) if isinstance(row, dict) else reason.raw
                put_aside.write(raw.rstrip("\r\n") + "\n")
            continue
        outcome.flags.update(flag for flag in claim.seen.flags if flag != "backfill")
        outcome.began(claim.seen.started_at or claim.seen.ended_at)
        yield claim


def _ingest(settings: Config, claims: Iterator[Claim], outcome: Outcome, waiting: Waiting) -> None:
    while chunk := list(islice(claims, RECORDS_PER_SETTLEMENT)):
        seen = [claim.seen for claim in chunk]
        try:
            if outcome.kind == "focus":
                seen = backfill_sums.fresh(settings, seen, outcome)
            report = add_observations(settings, seen)
        except LedgerError as error:
            raise type(error)(
                f"{error}. {outcome.settled.observations} rows are in; ingest all of it again,"
                " what is in already changes nothing"
            ) from error
        outcome.settled.add(report)
        waiting.add([claim.told for claim in chunk])
