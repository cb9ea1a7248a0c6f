"""The numbers of `drain --watch` in the Prometheus text format, version 0.0.4.

What is not known is not there: no metric is zero because nobody could look.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from costspan.cli.watched import Watched
from costspan.core import counters
from costspan.core.money import format_usd
from costspan.core.read.waiting import Waiting

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECOND_NS = 10**9


class Sample(NamedTuple):
    """A value and its labels. Money is a decimal text, never a float."""

    value: int | str
    labels: Mapping[str, str]


class Metric(NamedTuple):
    """A metric and its samples; without any it is not written."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: list[Sample]


def text_of(watched: Watched, folders: Iterable[Waiting], now_ns: int) -> str:
    """The whole page."""
    lines: list[str] = []
    for metric in (*_of_spools(list(folders), now_ns), *_of_drains(watched), *_of_books(watched)):
        if metric.samples:
            name = f"costspan_{metric.name}"
            lines += (f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}")
            lines += (f"{name}{_labels(each.labels)} {each.value}" for each in metric.samples)
    return "".join(f"{line}\n" for line in lines)


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    """A label's value: nobody's name ends a line or a label, and bytes of no text are shown."""
    text = value.encode("utf-8", "backslashreplace").decode()
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _one(value: int | str | None) -> list[Sample]:
    return [] if value is None else [Sample(value, {})]


def _each(label: str, values: Mapping[str, int]) -> list[Sample]:
    return [Sample(value, {label: name}) for name, value in sorted(values.items())]


def _seconds(ns: int) -> str:
    return f"{ns // _SECOND_NS}.{ns % _SECOND_NS:09d}"


def _age(found: Waiting, now_ns: int) -> str:
    """Seconds since the oldest segment was written, on a clock that may go back."""
    return _seconds(0 if found.oldest_ns is None else max(0, now_ns - found.oldest_ns))


def _of_spools(folders: list[Waiting], now_ns: int) -> Iterator[Metric]:
    readable = [found for found in folders if found.unreadable is None]

    def gauge(name: str, text: str, values: Iterable[int | str]) -> Metric:
        at = zip(readable, values, strict=True)
        samples = [Sample(value, {"folder": str(found.folder)}) for found, value in at]
        return Metric(name, "gauge", text, samples)

    yield gauge(
        "spool_segments",
        "Complete segments that wait for a drain.",
        (found.complete for found in readable),
    )
    yield gauge("spool_bytes", "Bytes of those.", (found.size_bytes for found in readable))
    yield gauge(
        "spool_oldest_seconds",
        "Age of the oldest of those; 0 if none waits.",
        (_age(found, now_ns) for found in readable),
    )
    yield gauge(
        "spool_live_segments",
        "Segments that processes are writing right now.",
        (found.live for found in readable),
    )
    yield gauge(
        "spool_quarantined",
        "Torn or damaged parts of segments, put aside.",
        (len(found.quarantined) for found in readable),
    )
    unreadable = [each for each in folders if each.unreadable is not None]
    yield Metric(
        "spool_unreadable",
        "gauge",
        "1 for a folder that cannot be read.",
        [Sample(1, {"folder": str(found.folder)}) for found in unreadable],
    )


def _of_drains(watched: Watched) -> Iterator[Metric]:
    totals = watched.totals()
    settled = totals.settled
    for name, text, value in (
        ("drains_total", "Drains that succeeded.", totals.drains),
        ("segments_drained_total", "Segments read; one that stays is read again.", totals.segments),
        ("records_settled_total", "Records new to the ledger.", settled.observations),
        ("records_duplicate_total", "Records that the ledger had.", settled.duplicates),
        ("records_conflict_total", "Records that came with two contents.", settled.conflicts),
        ("events_decided_total", "Events decided, again or first.", settled.events),
        ("postings_total", "Postings made.", settled.postings),
        ("events_swept_total", "Events given up: no end came.", totals.swept),
        ("torn_tails_total", "Torn parts put into quarantine.", totals.quarantined),
    ):
        yield Metric(name, "counter", text, _one(value))
    yield Metric(
        "drain_failures_total",
        "counter",
        "Drains that failed, by type; what they would have settled waits.",
        _each("type", watched.failures),
    )
    last = watched.last
    yield Metric(
        "records_unreadable",
        "gauge",
        "Records that the last drain could not read or settle; their segments stay.",
        _one(None if last is None else last.unreadable),
    )
    yield Metric(
        "segments_newer",
        "gauge",
        "Segments of a newer format that the last drain left.",
        _one(None if last is None else last.newer),
    )
    up = watched.is_ledger_up
    yield Metric(
        "ledger_up", "gauge", "1 if the ledger answered last time.", _one(up if up is None else +up)
    )
    at = watched.success_ns
    yield Metric(
        "last_success_timestamp_seconds",
        "gauge",
        "When a drain last succeeded (Unix time).",
        _one(None if at is None else _seconds(at)),
    )
    yield Metric(
        "survived_total",
        "counter",
        "Faults that this process survived, by name.",
        _each("name", counters.snapshot()),
    )


def _of_books(watched: Watched) -> Iterator[Metric]:
    books = watched.books
    if books is None:
        return
    for name, text in (
        ("open", "Events of the ledger that have not ended."),
        ("swept", "Events of the ledger given up: nobody saw them end."),
        ("unpriced", "Events of the ledger whose cost is unknown for want of a price."),
        ("unmeasured", "Events of the ledger whose cost is unknown for want of usage."),
    ):
        yield Metric(f"events_{name}", "gauge", text, _one(books.counts[name]))
    yield Metric(
        "records_refused_total",
        "counter",
        "Records that writers had to refuse, by reason; all writers of the ledger.",
        _each("reason", books.refused),
    )
    yield Metric(
        "sink_waiting",
        "gauge",
        "Postings that a sink has not taken (10000: so many at least).",
        _each("sink", {each.sink: each.waiting for each in books.sinks}),
    )
    yield Metric(
        "books_read_timestamp_seconds",
        "gauge",
        "When the ledger was looked at for these (Unix time).",
        _one(_seconds(books.at_ns)),
    )
    yield Metric(
        "charge_usd",
        "gauge",
        "What tenants are charged for the month so far, in USD.",
        [
            Sample(format_usd(charge), {"tenant": owner, "period": books.period})
            for owner, charge in books.charges
        ],
    )
