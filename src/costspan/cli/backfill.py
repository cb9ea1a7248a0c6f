"""`costspan ingest litellm-spendlogs|langfuse|focus`: rows of another system, into the books.

Reading the same rows twice changes nothing. Every row is in the report: it is new, was there
already, was left out, or was rejected, and where.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TextIO

from costspan.cli.backfill_report import Outcome, print_outcome
from costspan.cli.exits import BAD, OK, UsageError
from costspan.cli.printing import counted
from costspan.cli.progress import progress
from costspan.cli.settings import settings_of, shown_url
from costspan.core.backfill.claim import Claim, LeftOut, Rejected
from costspan.core.config import Config
from costspan.core.drain import RECORDS_PER_SETTLEMENT, add_observations
from costspan.core.ledger_errors import LedgerError
from costspan.core.periods import month_of
from costspan.core.read.books import Books
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger, open_url
from costspan.core.settle.policy import Policies
from costspan.plugins.backfill import focus, langfuse, litellm, sources
from costspan.plugins.backfill.sources import Placed, UnreadableSource

KINDS = ("litellm-spendlogs", "langfuse", "focus")
"""What `ingest` reads besides its own format."""

_LABEL = "label:backfill"
_URLS = ("postgresql://", "postgres://")
_MODULES = {"litellm-spendlogs": litellm, "langfuse": langfuse, "focus": focus}
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


def run(options: argparse.Namespace) -> int:
    """Ingest; 1 if a row was rejected (the others went in)."""
    settings = settings_of(options)
    kind: str = options.file
    converter = _converter(kind, options)
    outcome = Outcome(kind, shown_url(settings.ledger_url))
    with ExitStack() as stack:
        put_aside: TextIO | None = None
        if options.rejected is not None:
            put_aside = stack.enter_context(
                options.rejected.open("w", encoding="utf-8", errors="surrogateescape")
            )
        claims = _claims(_rows(kind, options.source), converter, outcome, put_aside)
        tell = stack.enter_context(progress("ingesting", "rows"))
        books = _Compared(settings, outcome, stack)
        guarded: set[str] = set()
        while chunk := list(islice(claims, RECORDS_PER_SETTLEMENT)):
            if kind == "focus":
                _refuse_metered(settings, chunk, guarded)
            try:
                report = add_observations(settings, [claim.seen for claim in chunk])
            except LedgerError as error:
                raise type(error)(
                    f"{error}. {outcome.settled.observations} rows are in; ingest all of it again,"
                    " what is in already changes nothing"
                ) from error
            outcome.settled.add(report)
            books.compare(chunk)
            tell(outcome.rows)
    print_outcome(outcome, as_json=options.json)
    return BAD if outcome.rejected else OK


def _converter(kind: str, options: argparse.Namespace) -> Converter:
    module = _MODULES[kind]
    named = [each.strip() for each in (options.tenant_from or "").split(",") if each.strip()]
    for each in named:
        known = each in module.KNOWN_FROM or any(
            prefix.endswith((".", "_")) and each.startswith(prefix) and each != prefix
            for prefix in module.KNOWN_FROM
        )
        if not known:
            places = ", ".join(f"{n}KEY" if n[-1] in "._" else n for n in module.KNOWN_FROM)
            raise UsageError(f"--tenant-from {each}: {kind} knows {places}")
    tenant_from: Sequence[str] = named or module.TENANT_FROM
    if kind == "litellm-spendlogs":
        return litellm.Converter(tenant_from, by_row=options.by_row)
    if options.by_row:
        raise UsageError("--by-row is for litellm-spendlogs")
    return langfuse.Converter(tenant_from) if kind == "langfuse" else focus.Converter(tenant_from)


def _rows(kind: str, source: str) -> Iterator[Placed]:
    if not source.startswith(_URLS):
        return sources.read(Path(source))
    if kind != "litellm-spendlogs":
        raise UsageError(f"{kind} is read from a file: export one")
    try:
        from costspan.plugins.backfill import postgres
    except ImportError as error:
        raise UnreadableSource("a table needs psycopg: pip install 'costspan[postgres]'") from error
    return postgres.read(source)


def _claims(
    rows: Iterator[Placed], converter: Converter, outcome: Outcome, put_aside: TextIO | None
) -> Iterator[Claim]:
    for where, row in rows:
        outcome.rows += 1
        try:
            if isinstance(row, Rejected):
                raise row
            claim = converter(row)
        except LeftOut as reason:
            outcome.left_out[str(reason)] += 1
            continue
        except Rejected as reason:
            outcome.rejected.append((where, str(reason)))
            if put_aside is not None:
                raw = reason.raw if isinstance(row, Rejected) else json.dumps(row, default=str)
                put_aside.write(raw.rstrip("\r\n") + "\n")
            continue
        outcome.flags.update(flag for flag in claim.seen.flags if flag != "backfill")
        yield claim


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


class _Compared:
    """The books beside what the rows say."""

    def __init__(self, settings: Config, outcome: Outcome, stack: ExitStack) -> None:
        self._settings = settings
        self._outcome = outcome
        self._stack = stack
        self._ledger: Ledger | None = None

    def compare(self, chunk: Sequence[Claim]) -> None:
        """Compare these rows, which are settled, with their events."""
        if self._ledger is None:
            self._ledger = open_url(self._settings.ledger_url, create=False)
            self._stack.callback(self._ledger.close)
        with self._ledger.snapshot():
            self._compare(self._ledger, chunk)

    def _compare(self, ledger: Ledger, chunk: Sequence[Claim]) -> None:
        events = {each.event.id: each for each in ledger.events({c.name for c in chunk})}
        policies = Policies(ledger.reading())
        prefix = f"{_MODULES[self._outcome.kind].SOURCE}:"
        for claim in chunk:
            oid = claim.seen.oid or ""
            found = events.get(claim.name)
            if found is None or oid not in found.event.oid_names:
                found = _met(ledger, oid)
            prices = None if found is None else policies.at(found.event).prices
            rows = 0 if found is None else _rows_of(found, prefix)
            self._outcome.compared.add(claim, found, prices, rows)


def _met(ledger: Ledger, oid: str) -> Settled | None:
    """The event that a row became evidence of; where it is on several, the one that is ok."""
    names = ledger.named(oid)
    found = sorted(
        ledger.events(names) if names else (),
        key=lambda each: (each.event.outcome != "ok", each.event.id),
    )
    return found[0] if found else None


def _rows_of(found: Settled, prefix: str) -> int:
    counted = Counter(name.startswith(prefix) for name in found.event.oid_names)
    return counted[True]
