"""`costspan replay FILE`: settle the scenarios of a file, and compare with what they expect."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
from rich.text import Text

from costspan.cli.exits import BAD, OK, UsageError
from costspan.cli.printing import Column, Page, amount, counted, print_json, to_stderr
from costspan.conformance.ledgers.fresh import IN_MEMORY, Opening, empty_ledgers
from costspan.conformance.scenario import (
    ScenarioError,
    ScenarioFile,
    differences,
)
from costspan.core.config import url_of


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `replay`."""
    parser.add_argument("file", metavar="FILE", type=Path, help="a scenario file (JSON)")
    parser.add_argument(
        "--shuffle",
        metavar="SEED",
        type=int,
        help="play the deliveries in another order and some of them twice: nothing may change",
    )
    parser.add_argument(
        "--batches", metavar="N", type=int, default=1, help="settle in N batches (default 1)"
    )
    parser.add_argument("--json", action="store_true", help="the books of every scenario")


def run(options: argparse.Namespace) -> int:
    """Settle every scenario; 1 if one has `expected` books and differs from them.

    Each in an empty ledger of its own: in memory, or at the place that --ledger names, beside what
    is there. Settings from elsewhere name the books of somebody's calls: they do not count here.
    """
    place: str | None = getattr(options, "ledger", None)
    if options.batches < 1:
        raise UsageError("--batches must be 1 or more")
    try:
        file = ScenarioFile.load(options.file)
        with empty_ledgers(_url(place)) as empty:
            played = [
                (scenario, _play(file, scenario, options, empty)) for scenario in _checked(file)
            ]
    except ScenarioError as error:
        raise UsageError(str(error)) from error
    wrong = {
        books["id"]: differences(books, scenario["expected"])
        for scenario, books in played
        if scenario.get("expected")
    }
    if options.json:
        print_json({"scenarios": [books for _, books in played]})
        for scenario_id, lines in wrong.items():
            for line in lines:
                to_stderr(f"{scenario_id}: {line}")
    else:
        _print(played, wrong)
    return BAD if any(wrong.values()) else OK


def _url(place: str | None) -> str:
    """Where empty ledgers are made; a bare path is a file of SQLite."""
    return IN_MEMORY if place is None else url_of(place)


class _Shape(msgspec.Struct):
    """What a scenario must look like to be played."""

    id: str
    deliveries: list[dict[str, Any]]
    expected: dict[str, Any] | None = None
    sessions: dict[str, str] | None = None
    adjustments: list[dict[str, Any]] | None = None


def _checked(file: ScenarioFile) -> list[dict[str, Any]]:
    """The scenarios, each of the shape that playing needs.

    Raises:
        ScenarioError: naming the first that is not.
    """
    for at, scenario in enumerate(file.scenarios, 1):
        try:
            msgspec.convert(scenario, _Shape)
        except msgspec.ValidationError as error:
            raise ScenarioError(f"{file.name}: scenario {at}: {error}") from None
    return file.scenarios


def _play(
    file: ScenarioFile,
    scenario: Mapping[str, Any],
    options: argparse.Namespace,
    empty: Opening,
) -> dict[str, Any]:
    try:
        batches = file.arrivals(scenario, options.batches, options.shuffle)
        with closing(empty()) as ledger:
            return file.books_of(scenario, batches, ledger)
    except ValueError as error:
        raise ScenarioError(f"{file.name}: scenario {scenario['id']}: {error}") from error


def _print(
    played: list[tuple[dict[str, Any], dict[str, Any]]], wrong: dict[str, list[str]]
) -> None:
    page = Page()
    styles = {"ok": "green", "DIFFERS": "bold red", "": "dim"}
    rows: list[list[Any]] = []
    for scenario, books in played:
        lines = wrong.get(books["id"])
        verdict = "" if lines is None else "DIFFERS" if lines else "ok"
        cost = amount(books["totals"]["cost"])
        rows.append([books["id"], Text(verdict, styles[verdict]), cost, _title(scenario)])
    page.table(
        [Column("scenario"), Column("books"), Column("cost USD", True), Column("title")], rows
    )
    page.line()
    for scenario_id, lines in wrong.items():
        for line in lines:
            page.line(f"{scenario_id}: {line}", "red")
    compared, bad = len(wrong), sum(1 for lines in wrong.values() if lines)
    style = "red" if bad else "green"
    page.line(
        f"{counted(len(played), 'scenario')}, {compared} with expected books, {bad} differ", style
    )


def _title(scenario: Mapping[str, Any]) -> str:
    return str(scenario.get("title", ""))
