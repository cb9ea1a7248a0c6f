"""The pytest side of `pytest --pyargs costspan.conformance --adapter module:Driver`.

Adds the options, loads the drivers and what makes ledgers (`--ledger module:Factory`), and prints
the matrix of scenarios and adapters at the end.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import traceback
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

import pytest
from rich.console import Console
from rich.table import Table

from costspan.conformance.ledgers.factory import LedgerFactory
from costspan.conformance.ledgers.postgres import PostgresLedgers
from costspan.conformance.ledgers.suite import LedgerConformance
from costspan.conformance.suite.driver import Driver
from costspan.conformance.suite.script import shipped

PROXY = "apscheduler"
"""A package that only `litellm[proxy]` brings; the proxy may also have a Python of its own."""

SHIPPED: Mapping[str, tuple[str, ...]] = {
    "manual": ("httpx",),
    "litellm_sdk": ("litellm",),
    "litellm_router": ("litellm",),
    "litellm_proxy": ("litellm", PROXY),
    "chat_openai": ("langchain_openai",),
    "langchain_litellm": ("langchain_litellm",),
    "langchain_proxy": ("langchain_openai", PROXY),
    "langgraph_agent": ("langgraph", "langchain", "langchain_openai"),
    "starlette_app": ("starlette", "uvicorn", "litellm"),
    "fastapi_app": ("fastapi", "uvicorn", "langchain_openai"),
}
"""The drivers that come with costspan, by module, and the packages of their hosts: played, where
these are installed, if no --adapter is given."""

T = TypeVar("T")

_drivers: list[type[Driver]] = []
_factories: list[type[LedgerFactory]] = []
_cells: dict[tuple[str, str], dict[str, str]] = {}
_absent: list[str] = []
_SQLITE = "costspan.conformance.ledgers.sqlite:SqliteLedgers"
_POSTGRES = "costspan.conformance.ledgers.postgres:PostgresLedgers"
"""Needs a database, or a server to start."""
_PLACE = re.compile(r"::Test_(\w+)::test_scenario\[(\w+)-(a?sync)\]")
_MARKS = {"passed": "ok", "failed": "FAIL", "xfailed": "known", "skipped": "-"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--adapter module:Driver` and `--ledger module:Factory`, as often as there are any."""
    group = parser.getgroup("costspan")
    group.addoption(
        "--adapter",
        action="append",
        default=[],
        metavar="MODULE:DRIVER",
        help="check this driver (default: those that costspan ships)",
    )
    group.addoption(
        "--ledger",
        action="append",
        default=[],
        metavar="MODULE:FACTORY",
        help="check the ledgers of this factory, and settle in one what each driver's play recorded"
        " (default: SQLite's, and PostgreSQL's where there is one; none if --adapter is given)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Load what is named: from the folder pytest was called in, or installed.

    Whoever names one kind alone wants nothing of the other.
    """
    here = str(config.invocation_params.dir)
    if here not in sys.path:
        sys.path.insert(0, here)
    adapters: list[str] = config.getoption("--adapter") or []
    ledgers: list[str] = config.getoption("--ledger") or []
    if not adapters and not ledgers:
        adapters, ledgers = list(_shipped()), list(_shipped_ledgers())
    _drivers[:] = [load(name) for name in adapters]
    _factories[:] = [_load(name, "--ledger", LedgerFactory) for name in ledgers]
    for option, what, names in (
        ("--adapter", "drivers", [driver.name for driver in _drivers]),
        ("--ledger", "factories", [factory.name for factory in _factories]),
    ):
        for name, number in Counter(names).items():
            if number > 1:
                raise pytest.UsageError(f"{option}: {number} {what} are named {name!r}; rename one")


def _shipped() -> Iterator[str]:
    _absent.clear()
    for module, hosts in SHIPPED.items():
        if all(map(_is_there, hosts)):
            yield f"costspan.conformance.drivers.{module}:driver"
        else:
            _absent.append(module)


def _shipped_ledgers() -> Iterator[str]:
    yield _SQLITE
    if PostgresLedgers.is_there():
        yield _POSTGRES
    else:
        _absent.append("the PostgreSQL ledger")


def _is_there(host: str) -> bool:
    elsewhere = host == PROXY and "COSTSPAN_PROXY_PYTHON" in os.environ
    return elsewhere or find_spec(host) is not None


def drivers() -> list[type[Driver]]:
    """The drivers of this run."""
    return list(_drivers)


def factories() -> list[type[LedgerFactory]]:
    """What makes the ledgers of this run."""
    return list(_factories)


def load(name: str) -> type[Driver]:
    """The driver class named `module:attribute`.

    Raises:
        pytest.UsageError: if there is none.
    """
    return _load(name, "--adapter", Driver)


def _load(name: str, option: str, kind: type[T]) -> type[T]:
    """The class of this kind named `module:attribute`, which an option asks for.

    Raises:
        pytest.UsageError: if there is none.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = getattr(import_module(module), attribute or "driver")
    except Exception as error:  # whatever importing a stranger's module raises
        last = traceback.extract_tb(error.__traceback__)[-1]
        is_theirs = "importlib" not in last.filename and last.filename != __file__
        place = f" ({last.filename}:{last.lineno})" if is_theirs else ""
        said = "".join(traceback.format_exception_only(error)).strip()
        raise pytest.UsageError(f"{option} {name}: {said}{place}") from error
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise pytest.UsageError(
            f"{option} {name}: {found!r} is no subclass of {kind.__name__}, of costspan.conformance"
        )
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, pytest.TestReport]:
    """Under a ledger's failure stands what the test asks of it, in words."""
    report: pytest.TestReport = yield
    test = getattr(item, "function", None)
    if report.failed and issubclass(getattr(item, "cls", None) or object, LedgerConformance):
        report.sections.append(("what must be", inspect.getdoc(test) or ""))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how a cell came out."""
    place = _PLACE.search(report.nodeid)
    if place is None:
        return
    outcome: str = "xfailed" if hasattr(report, "wasxfail") else report.outcome
    if report.when == "call" or outcome != "passed":
        driver, scenario, mode = place.groups()
        _cells.setdefault((scenario, driver), {})[mode] = outcome


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the matrix."""
    if not _cells:
        return
    names = list(dict.fromkeys(driver for _, driver in _cells))
    heads = [name.replace("_", "\n", 1) for name in names]
    natural = 60 + sum(max(map(len, head.split("\n"))) + 1 for head in heads)
    # In a terminal the titles give way to the drivers; a pipe or a log has all the room it needs.
    room = terminalreporter._tw.fullwidth if terminalreporter.isatty else natural
    titles = max(0, 48 - max(0, natural - room))
    table = Table(
        title="conformance", title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("scenario", no_wrap=True)
    table.add_column("", overflow="ellipsis", no_wrap=True, max_width=titles)
    for head in heads:
        table.add_column(head, justify="center", no_wrap=True)
    for scenario in shipped():
        row = [_cell(_cells.get((scenario.id, name), {})) for name in names]
        if any(row):
            table.add_row(scenario.id, scenario.title, *row)
    width = natural - 48 + titles
    console = Console(file=terminalreporter._tw._file, width=width, highlight=False, markup=False)
    terminalreporter.write_line("")
    console.print(table)
    terminalreporter.write_line(
        "ok: the books are right, in threads and on the loop, as far as both are claimed;"
    )
    terminalreporter.write_line(
        "-: not claimed; known: fails for a written reason; FAIL: see the failures above"
    )
    if _absent:
        terminalreporter.write_line(f"not played, not installed: {', '.join(_absent)}")


def _cell(outcomes: dict[str, str]) -> str:
    """One word for both modes: the worst that happened, and `-` where nothing was played."""
    for outcome in ("failed", "xfailed", "passed", "skipped"):
        if outcome in outcomes.values():
            return _MARKS[outcome]
    return ""
