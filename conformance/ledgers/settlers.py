"""Several settlers at once, in threads and processes, killed as they go."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import pytest

from costspan.conformance.ledgers.answers import everything
from costspan.conformance.ledgers.books import (
    alike,
    begin,
    calls,
    direct,
    holds_calls,
    keep,
    same,
    whole,
)  # fmt: skip
from costspan.conformance.ledgers.factory import LedgerFactory, name_of
from costspan.conformance.ledgers.witnesses import from_app, from_gateway
from costspan.core.ledger_errors import LedgerBusy
from costspan.core.rebuild import nets
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger, open_url

PROCESSES, CALLS, KILLS = 3, 240, 6
SHARED = 42
"""Calls that two instruments see."""
_DONE_SECONDS = 120

Child = subprocess.Popen[str]


@contextmanager
def child(factory: LedgerFactory, url: str, *what: object) -> Generator[Child]:
    """Another process at the ledger; killed, if it still runs at the end."""
    command = [sys.executable, "-m", "costspan.conformance.ledgers.child"]
    command += [name_of(type(factory)), url, *map(str, what)]
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=known
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def heard(running: Child) -> str:
    """The next line that it says."""
    assert running.stdout is not None
    return running.stdout.readline().strip()


def told(running: Child) -> None:
    """Let it begin."""
    assert running.stdin is not None
    running.stdin.write("\n")
    running.stdin.flush()


def ended(*running: Child) -> None:
    """Wait until all are done, and see that none failed."""
    for each in running:
        said, _ = each.communicate(timeout=_DONE_SECONDS)
        if each.returncode:
            last = said.strip().rpartition("\n")[2]
            pytest.fail(f"a settler ended with {each.returncode}: {last}", pytrace=False)


class Settlers:
    """What no settler may do to another."""

    def test_while_one_settles_others_are_told_that_it_is_busy(
        self, factory: LedgerFactory, ledger: Ledger
    ) -> None:
        """In the same process, through a connection of its own."""
        with closing(factory.ledger(ledger.url)) as other:
            with ledger.settling(1) as settlement:
                settle(settlement, calls(range(3)))
                with pytest.raises(LedgerBusy), other.settling(0.05):
                    pytest.fail("two settle at once", pytrace=False)
            keep(other, calls(range(2, 6)))
        holds_calls(ledger, range(6))

    def test_a_settler_that_is_killed_leaves_neither_lease_nor_records(
        self, factory: LedgerFactory, ledger: Ledger
    ) -> None:
        """Kill -9 in the middle of a settlement; whoever waits is next."""
        with child(factory, ledger.url, "hold") as holder:
            same("a settler begins", heard(holder), "holds")
            with pytest.raises(LedgerBusy), ledger.settling(0.05):
                pytest.fail("two settle at once", pytrace=False)
            holder.kill()
            with ledger.settling(60):
                pass
        holds_calls(ledger, range(0))
        keep(ledger, calls(range(5)))
        holds_calls(ledger, range(5))

    def test_threads_may_race(self, factory: LedgerFactory, ledger: Ledger) -> None:
        """All settle the same calls, each through a ledger of its own."""

        def race(thread: int) -> None:
            with closing(factory.ledger(ledger.url)) as opened:
                for at in range(0, 60, 6):
                    batch = calls(range(at, at + 10))
                    for _ in range(1000):
                        try:
                            with opened.settling(0.02 * thread) as settlement:
                                settle(settlement, batch)
                            break
                        except LedgerBusy:
                            continue
                    else:
                        pytest.fail(f"thread {thread} never came to settle", pytrace=False)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(race, range(1, 5)))
        holds_calls(ledger, range(64))

    def test_processes_may_race(self, factory: LedgerFactory, ledger: Ledger) -> None:
        """All bring the same calls, in batches that overlap."""
        with ExitStack() as stack:
            running = [
                stack.enter_context(
                    child(factory, ledger.url, "calls", 20 * at, CALLS, 13 + 4 * at)
                )
                for at in range(PROCESSES)
            ]
            ended(*running)
        holds_calls(ledger, range(CALLS))

    def test_settlers_may_be_killed_as_they_go(
        self, factory: LedgerFactory, ledger: Ledger
    ) -> None:
        """Each begins anew, as a spool delivers again what nobody says is settled."""
        chance = random.Random(1)
        with ExitStack() as stack:

            def start() -> Child:
                return stack.enter_context(child(factory, ledger.url, "calls", 0, CALLS, 20))

            running = [start() for _ in range(2)]
            for _ in range(KILLS):
                which = chance.randrange(2)
                for _ in range(chance.randrange(4)):
                    heard(running[which])
                running[which].kill()
                running[which] = start()
            ended(*running)
        holds_calls(ledger, range(CALLS))

    @pytest.mark.parametrize("size", [1, 9])
    def test_what_two_processes_saw_of_one_call_is_one_event(
        self, factory: LedgerFactory, ledger: Ledger, size: int
    ) -> None:
        """An application and a gateway, brought at the same moment."""
        with ExitStack() as stack:
            running = [
                stack.enter_context(child(factory, ledger.url, "witness", who, SHARED, size + at))
                for at, who in enumerate(("app", "gateway"))
            ]
            for each in running:
                same("a settler begins", heard(each), "ready")
            for each in running:
                told(each)
            ended(*running)
        _holds_shared(ledger)

    @pytest.mark.parametrize("first", [from_app, from_gateway], ids=["app", "gateway"])
    def test_whichever_witness_comes_first(
        self, ledger: Ledger, first: Callable[[int], Observation]
    ) -> None:
        """What was posted of one is moved to whom the other names."""
        second = from_gateway if first is from_app else from_app
        for witness in (first, second, first):
            keep(ledger, [witness(number) for number in range(SHARED)])
        _holds_shared(ledger)


def _holds_shared(ledger: Ledger) -> None:
    """Each call that two saw is one event, its tenant's; as SQLite has it."""
    __tracebackhide__ = True
    same("calls that two saw are counted twice, or lost", ledger.counts("events")["events"], SHARED)
    same("somebody pays for another", nets(ledger), {
        key: amounts for tenant in range(7)
        for key, amounts in direct(f"t{tenant}", SHARED // 7).items()
    })  # fmt: skip
    with closing(open_url("sqlite:///:memory:", create=True)) as other:
        seen = [witness(at) for at in range(SHARED) for witness in (from_app, from_gateway)]
        keep(begin(other), seen)
        # In which order they came is no matter of the books; how they came is in these.
        ways = ("postings", "sums", "given_away", "counts", "explanations", "writers", "sealed")
        found, expected = everything(ledger), everything(other)
        for answers in (found, expected):
            for name in [name for name in answers if name.startswith(ways)]:
                del answers[name]
        alike("joined", found, expected)
    whole(ledger)
