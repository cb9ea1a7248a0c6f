"""`costspan ingest litellm-spendlogs|langfuse|focus`: rows of another system, into the books.

Reading the same rows twice changes nothing. Every row is in the report: it is new, was there
already, was left out, or was rejected, and where.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from costspan.cli.backfill_compared import compare_all
from costspan.cli.backfill_outcome import Outcome
from costspan.cli.backfill_report import print_outcome
from costspan.cli.exits import BAD, OK, UsageError
from costspan.cli.printing import counted
from costspan.cli.progress import progress
from costspan.cli.settings import settings_of
from costspan.core.backfill.claim import Claim, LeftOut, Rejected
from costspan.core.backfill.waiting import Waiting
from costspan.core.config import Config
from costspan.core.drain import RECORDS_PER_SETTLEMENT, add_observations
from costspan.core.ledger_errors import LedgerError
from costspan.core.ledger_urls import shown_url
from costspan.core.periods import month_of
from costspan.core.read.books import Books
from costspan.core.settle.ledger import open_url
from costspan.plugins.backfill import focus, focus_sums, langfuse, litellm, sources
from costspan.plugins.backfill.placed import Placed, UnreadableSource

KINDS = ("litellm-spendlogs", "langfuse", "focus")
"""What `ingest` reads besides its own format."""

_LABEL = "label:backfill"
_URLS = ("postgresql://", "postgres://")
_MODULES: dict[str, Any] = {"litellm-spendlogs": litellm, "langfuse": langfuse, "focus": focus}
_ROWS_PROBED = 100
Converter = Callable[[dict[str, object]], Claim]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ingest` that only these sources know."""
    parser.add_argument(
        "--tenant-from",
        metavar="WHERE",
        help="a column, or metadata.KEY; several with commas, best first. Default: "
        + "; ".join(f"{name}: {','.join(_MODULES[name].TENANT_FROM)}" for name in KINDS),
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
    module, began = _MODULES[kind], time.monotonic()
    tenant_from = _tenant_from(kind, options)
    outcome = Outcome(kind, options.source, shown_url(settings.ledger_url), tenant_from)
    with ExitStack() as stack:
        put_aside: TextIO | None = None
        if options.rejected is not None:
            put_aside = stack.enter_context(
                options.rejected.open("w", encoding="utf-8", errors="surrogateescape")
            )
        rows = _recognised(_rows(kind, options.source), kind)
        claims = _claims(rows, _converter(kind, tenant_from, options), outcome, put_aside)
        if kind == "focus":
            claims = focus_sums.added_up(claims)
        waiting = stack.enter_context(Waiting())
        _ingest(settings, claims, outcome, waiting)
        with progress("comparing", "rows", waiting.rows) as tell:
            compare_all(settings.ledger_url, module.SOURCE, waiting, outcome.compared, tell)
    outcome.seconds = time.monotonic() - began
    print_outcome(outcome, module.trust_of, as_json=options.json, as_csv=options.csv)
    return BAD if outcome.rejected_rows else OK


def _tenant_from(kind: str, options: argparse.Namespace) -> Sequence[str]:
    module = _MODULES[kind]
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


def _rows(kind: str, source: str) -> Iterator[Placed]:
    if "://" not in source:
        return sources.read(Path(source))
    if kind != "litellm-spendlogs":
        raise UsageError(f"{kind} is read from a file: export one")
    if not source.startswith(_URLS):
        raise UsageError(
            f"{shown_url(source)}: a table's URL begins with postgresql:// as it stands here"
        )
    try:
        from costspan.plugins.backfill import postgres
    except ImportError as error:
        raise UnreadableSource("a table needs psycopg: pip install 'costspan[postgres]'") from error
    return postgres.read(source)


def _recognised(rows: Iterator[Placed], kind: str) -> Iterator[Placed]:
    """The rows, if the first of them are of this kind: a wrong export is told before it is read.

    Raises:
        UnreadableSource: if none of the first is; nothing was changed.
    """
    first = list(islice(rows, _ROWS_PROBED))
    found = [placed.row for placed in first if isinstance(placed.row, dict)]
    if found and not any(_MODULES[kind].recognises(row) for row in found):
        others = [name for name in KINDS if any(_MODULES[name].recognises(row) for row in found)]
        said = f"costspan ingest {others[0]} reads them" if others else _MODULES[kind].MEANT
        columns = ", ".join(list(found[0])[:8])
        raise UnreadableSource(f"these are no rows of {kind} (they have {columns}, ...): {said}")
    return chain(first, rows)


def _claims(
    rows: Iterator[Placed], converter: Converter, outcome: Outcome, put_aside: TextIO | None
) -> Iterator[Claim]:
    for where, row in rows:
        outcome.rows += 1
        try:
            if not isinstance(row, dict):
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
    guarded: set[str] = set()
    with progress("ingesting", "rows") as tell:
        while chunk := list(islice(claims, RECORDS_PER_SETTLEMENT)):
            if outcome.kind == "focus":
                _refuse_metered(settings, chunk, guarded)
            try:
                report = add_observations(settings, [claim.seen for claim in chunk])
            except LedgerError as error:
                raise type(error)(
                    f"{error}. {outcome.settled.observations} rows are in; ingest all of it again,"
                    " what is in already changes nothing"
                ) from error
            outcome.settled.add(report)
            waiting.add([claim.told for claim in chunk])
            tell(outcome.rows)


def _refuse_metered(settings: Config, chunk: Sequence[Claim], guarded: set[str]) -> None:
    """A row of FOCUS is a sum of calls: none may be added to a month whose calls are known."""
    months = {month_of(claim.seen.started_at or 0) for claim in chunk} - guarded
    if not months:
        return
    with Books(open_url(settings.ledger_url, create=True)) as books:
        for month in sorted(months):
            rows = books.totals(_LABEL, month)["rows"]
            if others := sum(row["events"] for row in rows if row[_LABEL] != "focus"):
                raise UsageError(
                    f"{counted(others, 'event')} of {month} in the books already: these rows are"
                    f" sums of the same calls, and would double them. {focus.MEANT}"
                )
    guarded |= months
