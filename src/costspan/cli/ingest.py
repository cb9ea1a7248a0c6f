"""`costspan ingest FILE`: observations from a file, one JSON object a line, in the wire format.

`costspan ingest litellm-spendlogs SOURCE` and the like read what other systems kept (`backfill`).

Reading a file twice changes nothing: a line that does not name itself (no `oid`, no `writer` with
`seq`) is named by its content and by how often that content stood in the file before it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from costspan.cli import backfill
from costspan.cli.exits import BAD, OK, UsageError
from costspan.cli.printing import Page, counted, print_json, to_stderr
from costspan.cli.progress import progress
from costspan.cli.settings import settings_of
from costspan.core import clean
from costspan.core.attributes import allow
from costspan.core.drain import RECORDS_PER_SETTLEMENT, add_observations
from costspan.core.journal.frames import PAYLOAD_BYTES_MAX
from costspan.core.ledger_errors import LedgerError
from costspan.core.ledger_urls import shown_url
from costspan.core.schema import FIELDS, SCHEMA_VERSION, Observation, json_schema
from costspan.core.settle import Report

_SHOWN_MAX = 20
_SAYS_NOTHING = frozenset({"schema_version", "layer", "phase"})


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ingest`."""
    kinds = ", ".join(backfill.KINDS)
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help=f"NDJSON, or - for standard input; or one of {kinds}, and then its SOURCE",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="*",
        help="its export (CSV, JSON or NDJSON; gzip too), all of its parts in one run; for"
        " litellm-spendlogs also the postgresql:// URL of LiteLLM's database",
    )
    backfill.arguments(parser)
    parser.add_argument(
        "--rejected", metavar="FILE", type=Path, help="write the rejected lines here, as they are"
    )
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of a line")
    parser.add_argument("--json", action="store_true", help="one JSON document")


def run(options: argparse.Namespace) -> int:
    """Ingest; 1 if a line was rejected (the others went in)."""
    if options.schema:
        print(schema_text(), end="")
        return OK
    if options.file is None:
        raise UsageError("name a FILE, or - for standard input (--schema prints the format)")
    if options.source:
        if options.file not in backfill.KINDS:
            raise UsageError(
                f"of {options.file!r} nothing is known: {', '.join(backfill.KINDS)}"
                " (a file of costspan's own lines is read alone)"
            )
        return backfill.run(options)
    if options.file in backfill.KINDS and not Path(options.file).exists():
        raise UsageError(f"costspan ingest {options.file} SOURCE: name its export")
    if "://" in options.file:
        raise UsageError(f"{shown_url(options.file)} is no file: say of what kind its table is")
    if options.tenant_from is not None or options.by_row or options.csv:
        raise UsageError(f"--tenant-from, --by-row and --csv are for {', '.join(backfill.KINDS)}")
    settings = settings_of(options)
    allow(settings.attributes)
    report = Report()
    with ExitStack() as stack:
        source: BinaryIO = sys.stdin.buffer
        if options.file != "-":
            source = stack.enter_context(Path(options.file).open("rb"))
        put_aside: BinaryIO | None = None
        if options.rejected is not None:
            put_aside = stack.enter_context(options.rejected.open("wb"))
        lines = _Lines(source, put_aside)
        tell = stack.enter_context(progress("ingesting", "lines"))
        good = iter(lines)
        while chunk := list(islice(good, RECORDS_PER_SETTLEMENT)):
            try:
                report.add(add_observations(settings, chunk))
            except LedgerError as error:
                raise type(error)(
                    f"{error}. {report.observations} observations of earlier lines are in; ingest"
                    " the whole file again, what is in already changes nothing"
                ) from error
            tell(lines.read)
    if options.json:
        print_json(_plain(lines, report))
        to_stderr(f"ledger: {shown_url(settings.ledger_url)}")
    else:
        _print(lines, report, shown_url(settings.ledger_url))
    return BAD if lines.rejected else OK


def schema_text() -> str:
    """The published JSON Schema, as `docs/observation.schema.json` has it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=True) + "\n"


class Reject(ValueError):
    """A line that is no observation, and why."""


class _Lines:
    """The observations of a file; what is rejected is counted, kept aside and named."""

    def __init__(self, source: BinaryIO, put_aside: BinaryIO | None) -> None:
        self._source = source
        self._put_aside = put_aside
        self._seen: Counter[bytes] = Counter()
        self.read = 0
        self.rejected: list[tuple[int, str]] = []
        self.flags: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Observation]:
        for number, line in enumerate(self._source, 1):
            content = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
            if not content:
                continue
            self.read += 1
            try:
                yield self._observation(content)
            except Reject as reason:
                self.rejected.append((number, str(reason)))
                if self._put_aside is not None:
                    self._put_aside.write(content + b"\n")

    def _observation(self, content: bytes) -> Observation:
        fields = fields_of(content)
        seen = clean.observation(fields)
        said = frozenset(seen.flags) - frozenset(fields.get("flags") or ())
        self.flags.update(said)
        if seen.oid is None and (seen.writer is None or seen.seq is None):
            digest = hashlib.sha256(msgspec.json.encode(fields, order="deterministic"))
            self._seen[digest.digest()] += 1
            nth = self._seen[digest.digest()]
            seen = msgspec.structs.replace(seen, oid=f"ingest:{digest.hexdigest()}#{nth}")
        return seen


def fields_of(content: bytes) -> dict[str, Any]:
    """The fields of one line.

    Raises:
        Reject: if it is no JSON object, has unknown fields, or says or names nothing.
    """
    if len(content) > PAYLOAD_BYTES_MAX:
        raise Reject(f"longer than {PAYLOAD_BYTES_MAX} bytes")
    try:
        fields = msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.ValidationError:
        raise Reject("not a JSON object") from None
    except msgspec.DecodeError as error:
        raise Reject(f"not JSON: {error}") from None
    except RecursionError:
        raise Reject("not JSON that can be read: nested too deep") from None
    if unknown := sorted(set(fields) - set(FIELDS)):
        raise Reject(f"unknown fields: {', '.join(map(ascii, unknown))}")
    version = fields.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise Reject(f"schema_version {version!r}; this costspan reads {SCHEMA_VERSION}")
    told = {name for name, value in fields.items() if value is not None}
    if not told - _SAYS_NOTHING:
        raise Reject("it says nothing, and nothing identifies it")
    if "oid" not in told and ("writer" in told) != ("seq" in told):
        raise Reject("writer and seq name an observation together: one of them is missing")
    return fields


def _plain(lines: _Lines, report: Report) -> dict[str, Any]:
    return {
        "lines": lines.read,
        "rejected": [{"line": number, "reason": reason} for number, reason in lines.rejected],
        "flags": dict(lines.flags),
        "settled": {name: getattr(report, name) for name in report.__struct_fields__},
    }


def _print(lines: _Lines, report: Report, url: str) -> None:
    page = Page()
    page.line(f"ledger {url}", "dim")
    page.line(
        f"read {counted(lines.read, 'line')}: {report.observations:,} new, {report.duplicates:,} in"
        f" the ledger already, {len(lines.rejected):,} rejected; {counted(report.events, 'event')}"
        f" decided, {counted(report.postings, 'posting')}"
    )
    if report.conflicts:
        page.line(
            f"{counted(report.conflicts, 'conflict')}: one oid, two payloads; both are kept",
            "yellow",
        )
    if lines.flags:
        flags = ", ".join(f"{flag} ({times})" for flag, times in sorted(lines.flags.items()))
        page.line(f"kept, but without what could not be used: {flags}", "yellow")
    for number, reason in lines.rejected[:_SHOWN_MAX]:
        to_stderr(f"line {number}: {reason}")
    if len(lines.rejected) > _SHOWN_MAX:
        to_stderr(f"... and {len(lines.rejected) - _SHOWN_MAX} more (--json names every one)")
