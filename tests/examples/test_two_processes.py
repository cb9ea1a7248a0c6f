"""An application and a real LiteLLM proxy see every call, each into its own spool: one event.

The calls are made once. Three ledgers are given copies of the two spools: the application's first,
the proxy's first, and both at once.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from deployed import WAIT_SECONDS, calls, costspan_command, differences, outside, proxy_python

from costspan.conformance.drivers.proxy_process import Proxy
from costspan.conformance.provider import LoopbackProvider, contract_toml
from costspan.core.config import Config
from costspan.core.drain import drain
from costspan.core.read.books import Books
from costspan.core.settle.ledger import open_url

pytestmark = pytest.mark.timeout(600)  # a proxy imports for half a minute on a busy machine

ORDERS = ("application first", "proxy first", "both at once")
CALLS = 12  # of the provider, by agent.py: two tenants, six each
WAITING = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Seen(NamedTuple):
    """What was recorded on both sides, and the provider that knows what was true."""

    provider: LoopbackProvider
    spools: dict[str, Path]
    prices: Path


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    proxy_python()
    folder = tmp_path_factory.mktemp("seen")
    prices = folder / "prices.toml"
    prices.write_text(contract_toml(), "utf-8")
    with LoopbackProvider() as provider:
        proxy = Proxy(provider, folder)
        try:
            environment = {
                **outside(), "COSTSPAN_SPOOL": str(folder / "application"), "COSTSPAN_DRAIN": "off",
                "COSTSPAN_SPOOL_BESIDE": "off", "COSTSPAN_GATEWAYS": proxy.url,
            }  # fmt: skip
            agent = str(Path(__file__).with_name("agent.py"))
            subprocess.run([sys.executable, agent, proxy.url], env=environment, check=True)
            spools = {"application": folder / "application", "proxy": proxy.rotate()}
        finally:
            proxy.close()
        provider.wait_idle()
        yield Seen(provider, spools, prices)


@pytest.fixture(scope="module")
def ledgers(
    postgres: object, seen: Seen, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Order -> URL of the ledger that was given both spools in that order."""
    from postgres_server import PostgresServer

    assert isinstance(postgres, PostgresServer)
    found = {order: postgres.database() for order in ORDERS}
    for order, url in found.items():
        copies = {
            side: Path(shutil.copytree(spool, tmp_path_factory.mktemp("spools") / side))
            for side, spool in seen.spools.items()
        }
        sides = ["proxy", "application"] if order == "proxy first" else ["application", "proxy"]
        if order == "both at once":
            at_once(url, [copies[side] for side in sides], seen)
        else:
            for side in sides:
                drain(settings(url, copies[side], seen))
    return found


def settings(url: str, spool: Path, seen: Seen) -> Config:
    return Config(ledger=url, spool=spool, prices=seen.prices)


def at_once(url: str, spools: list[Path], seen: Seen) -> None:
    """Two processes that drain, and wait for the settler's lease, until both may have it."""
    import psycopg

    from costspan.plugins.ledgers.postgres.migrations import lease

    drain(settings(url, spools[0].parent / "empty", seen))  # makes the tables, says the policy
    with psycopg.connect(url) as settler, psycopg.connect(url, autocommit=True) as watcher:
        settler.execute(lease("costspan").encode())
        drains = [draining(url, spool, seen) for spool in spools]
        until = time.monotonic() + WAIT_SECONDS
        while watcher.execute(WAITING).fetchone() != (len(drains),):
            assert time.monotonic() < until, "the drains never came to the ledger"
            time.sleep(0.05)
        settler.rollback()
    for each in drains:
        said, _ = each.communicate(timeout=WAIT_SECONDS)
        assert each.returncode == 0, said


def draining(url: str, spool: Path, seen: Seen) -> subprocess.Popen[str]:
    """`costspan drain`, in a process of its own."""
    return subprocess.Popen(
        costspan_command("drain", "--ledger", url, "--spool", str(spool)),
        env={**outside(), "COSTSPAN_SPOOL_BESIDE": "off", "COSTSPAN_PRICES": str(seen.prices)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def books_of(url: str) -> Books:
    return Books(open_url(url, create=False))


@pytest.mark.parametrize("order", ORDERS)
def test_a_call_that_both_saw_is_one_event(order: str, ledgers: dict[str, str], seen: Seen) -> None:
    with books_of(ledgers[order]) as books:
        assert differences(books, seen.provider) == []
        events = calls(books)
        assert len(events) == CALLS
        for event in events:
            assert witnesses(books, event["event"]) == {"langchain", "litellm"}, event


def witnesses(books: Books, event_id: str) -> set[str]:
    """Who saw an event."""
    nodes = list(books.explain(event_id).roots)
    while (node := nodes.pop()).id != event_id:
        nodes += node.below
    return {witness.source for witness in node.witnesses}


def test_every_order_gives_the_same_books(ledgers: dict[str, str]) -> None:
    found: list[Any] = []
    for url in ledgers.values():
        with books_of(url) as books:
            events = {
                # Each ledger has a pseudonym of its own for a person.
                event["event"]: {name: event[name] for name in event if name != "user"}
                for event in books.events()
            }
            found.append((events, books.totals(by="owner,bucket,model,session")))
    assert found[1] == found[0]
    assert found[2] == found[0]
