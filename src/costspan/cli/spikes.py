"""`costspan report --spikes`: what drove a rise between two windows, answer first."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from rich.text import Text

from costspan.cli.exits import OK, UsageError
from costspan.cli.moments import moment_ns, when
from costspan.cli.printing import (
    Column,
    Page,
    amount,
    print_csv,
    print_json,
    text_of,
    to_stderr,
)
from costspan.cli.progress import progress
from costspan.core.money import format_usd, round_ratio
from costspan.core.read.books import Books
from costspan.core.read.drivers import NAMELESS, REST, Driver, Spikes, Window
from costspan.core.read.effects import Effects
from costspan.core.read.spikes import spikes

_WORDS = {
    "volume": "more events",
    "size": "more tokens an event",
    "mix": "dearer models or prices",
}
_LESS = {
    "volume": "fewer events",
    "size": "fewer tokens an event",
    "mix": "cheaper models or prices",
}
_CSV = (
    *("dimension", "key", "state", "events_before", "events_after", "tokens_before"),
    *("tokens_after", "cost_before", "cost_after", "difference", "share_permille"),
    *("volume", "size", "mix", "sessions_before", "sessions_after", "requests_before"),
    "requests_after",
)
_SHARE_SAID_MIN = 100
"""Thousandths of the rise: what drove less than a tenth of it is no answer."""
_DAY_NS = 86_400 * 10**9
_PICO_PER_CENT = 10**10


def run(books: Books, options: argparse.Namespace) -> int:
    """Print what moved."""
    after = _window(options)
    by = tuple(each.strip() for each in options.by.split(",")) if options.by else ()
    with progress("reading", "events", books.ledger.counts("events")["events"]) as tell:
        try:
            found = spikes(books.ledger, after, _before(options), by, progress=tell)
        except ValueError as error:
            raise UsageError(str(error)) from error
    if options.json or options.csv:
        to_stderr(f"ledger: {books.url}")
    if options.json:
        print_json({"answer": answer(found), **found.plain()})
    elif options.csv:
        print_csv(_CSV, _csv_rows(found))
    else:
        _print(Page(), books.url, found)
    return OK


def _window(options: argparse.Namespace) -> Window:
    if options.since is None or options.until is None:
        raise UsageError("--spikes asks about a window: give --since and --until")
    if options.period is not None:
        raise UsageError("--spikes asks about a window: --since and --until, no --period")
    window = Window(moment_ns(options.since), moment_ns(options.until))
    if window.since >= window.until:
        raise UsageError("--since must be before --until")
    return window


def _before(options: argparse.Namespace) -> Window | None:
    if options.before is None:
        return None
    since, dots, until = options.before.partition("..")
    if not dots:
        raise UsageError("--before is a window: 2026-10-01..2026-10-08")
    return Window(moment_ns(since), moment_ns(until))


def answer(found: Spikes) -> str:
    """The answer in a sentence."""
    difference = found.difference
    windows = f"from {_span(found.windows[0])} to {_span(found.windows[1])}"
    if not difference:
        return f"Nothing moved {windows}: {_usd(found.after.cost)} USD both times."
    verb = "rose" if difference > 0 else "fell"
    how_much = f"by {_usd(abs(difference))} USD"
    if found.before.cost:
        percent = _percent(round_ratio(abs(difference) * 1000, found.before.cost))
        how_much += f" ({'+' if difference > 0 else '-'}{percent})"
    return f"Cost {verb} {how_much} {windows}{_drivers_said(found)}; {_why(found.effects)}."


def _drivers_said(found: Spikes) -> str:
    said: list[str] = []
    for dimension in ("tenant", "loop", "tool chain", "prompt template"):
        leading = next((each for each in found.drivers[dimension] if each.key != REST), None)
        share = None if leading is None else found.share(leading.difference)
        if leading is None or share is None or share < _SHARE_SAID_MIN or leading.key in NAMELESS:
            continue
        new = ", new" if leading.state == "new" else ""
        name = "agent loop" if dimension == "loop" else dimension
        said.append(f"{name} {leading.key} ({_percent(share)} of it{new})")
    return f", driven by {', '.join(said)}" if said else ""


def _why(effects: Effects) -> str:
    """The greatest effect, and another if it is at least half as great."""
    ordered = sorted(effects._asdict().items(), key=lambda item: -abs(item[1]))
    said = [(_WORDS if value > 0 else _LESS)[name] for name, value in ordered[:1]]
    if abs(ordered[1][1]) * 2 >= abs(ordered[0][1]) > 0:
        name, value = ordered[1]
        said.append((_WORDS if value > 0 else _LESS)[name])
    return "mostly " + " and ".join(said)


def _print(page: Page, url: str, found: Spikes) -> None:
    page.line(answer(found), "bold")
    page.line(f"ledger {url}", "dim")
    for dimension, drivers in found.drivers.items():
        if all(each.key in NAMELESS for each in drivers):
            continue
        page.line()
        _table(page, dimension, drivers, found)
    page.line()
    page.line(
        "difference = volume (more events) + size (more tokens an event) + mix (dearer tokens)",
        "dim",
    )
    if found.is_cut:
        page.line("so many keys that the cheapest are added up as all others", "yellow")
    if any(found.unpriced):
        before, after = found.unpriced
        page.line(
            f"of unknown cost, in no sum: {before:,} events before, {after:,} after", "yellow"
        )


def _table(page: Page, dimension: str, drivers: list[Driver], found: Spikes) -> None:
    is_loop = dimension == "loop"
    columns = [
        Column("agent loop" if is_loop else dimension),
        *(Column(name, True) for name in ("before USD", "after USD", "difference", "share")),
        *(Column(name, True) for name in ("volume", "size", "mix")),
        *([Column("a session", True), Column("steps a request", True)] if is_loop else []),
        Column(""),
    ]
    rows: list[list[str | Text]] = []
    for each in drivers:
        share = found.share(each.difference)
        row: list[str | Text] = [
            each.key,
            *(_amount(value) for value in (each.before.cost, each.after.cost, each.difference)),
            "" if share is None else _percent(share),
            *(_amount(value) for value in each.effects),
        ]
        if is_loop:
            row += [_per_session(each), _steps(each)]
        rows.append([*row, "" if each.state == "both" else each.state])
    page.table(columns, rows)


def _per_session(each: Driver) -> str:
    if each.loop is None:
        return ""
    costs = (each.before.cost, each.after.cost)
    return _then(
        [
            _usd(round_ratio(cost, many)) if many else "-"
            for cost, many in zip(costs, each.loop.sessions, strict=True)
        ]
    )


def _steps(each: Driver) -> str:
    if each.loop is None:
        return ""
    events = (each.before.events, each.after.events)
    return _then(
        [
            _tenths(round_ratio(steps * 10, many)) if many else "-"
            for steps, many in zip(events, each.loop.requests, strict=True)
        ]
    )


def _then(values: list[str]) -> str:
    return values[0] if values[0] == values[1] else " -> ".join(values)


def _csv_rows(found: Spikes) -> Iterator[list[Any]]:
    for dimension, drivers in found.drivers.items():
        for each in drivers:
            loop: tuple[int | str, ...] = ("",) * 4
            if each.loop is not None:
                loop = (*each.loop.sessions, *each.loop.requests)
            yield [
                *(dimension, each.key, each.state, each.before.events, each.after.events),
                *(each.before.tokens, each.after.tokens, format_usd(each.before.cost)),
                *(format_usd(each.after.cost), format_usd(each.difference)),
                found.share(each.difference),
                *(format_usd(value) for value in each.effects),
                *loop,
            ]


def _amount(pico: int) -> Text:
    return text_of(amount(format_usd(pico)))


def _usd(pico: int) -> str:
    """To the cent where that says something, else exact."""
    if abs(pico) >= 10 * _PICO_PER_CENT:
        return format_usd(round_ratio(pico, _PICO_PER_CENT) * _PICO_PER_CENT)[:-10]
    whole, _, places = format_usd(pico).partition(".")
    return f"{whole}.{places.rstrip('0').ljust(2, '0')}"


def _tenths(tenths: int) -> str:
    return f"{tenths // 10}.{tenths % 10}"


def _percent(permille: int) -> str:
    sign, size = ("-", -permille) if permille < 0 else ("", permille)
    return f"{sign}{size // 10}.{size % 10} %"


def _span(window: Window) -> str:
    if window.since % _DAY_NS or window.until % _DAY_NS:
        return f"{when(window.since)}..{when(window.until)}"
    return f"{when(window.since)[:10]}..{when(window.until)[:10]}"
