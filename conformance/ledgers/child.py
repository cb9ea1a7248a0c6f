"""Another process at the same ledger: what the suite starts, races and kills.

    python -m costspan.conformance.ledgers.child MODULE:FACTORY URL WHAT [NUMBER …]

It says every step on a line of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from costspan.conformance.ledgers.books import calls
from costspan.conformance.ledgers.factory import named
from costspan.conformance.ledgers.witnesses import from_app, from_gateway
from costspan.core.ledger_errors import LedgerBusy, LedgerError
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger


def say(text: str) -> None:
    """One step is done."""
    print(text, flush=True)


def keep(ledger: Ledger, batch: Sequence[Observation]) -> None:
    """Settle a batch, however long others do."""
    while True:
        try:
            with ledger.settling(0.2) as settlement:
                settle(settlement, batch)
        except LedgerBusy:
            say("busy")
        else:
            say("settled")
            return


def batches(seen: Sequence[Observation], size: int) -> Iterator[Sequence[Observation]]:
    """Pieces of so many."""
    return (seen[at : at + size] for at in range(0, len(seen), size))


def settle_calls(ledger: Ledger, first: str, last: str, size: str) -> None:
    """Settle the calls of these numbers in batches."""
    for batch in batches(calls(range(int(first), int(last))), int(size)):
        keep(ledger, batch)


def settle_witness(ledger: Ledger, who: str, many: str, size: str) -> None:
    """Settle what one of two instruments saw of the same calls, once it is told to begin."""
    witness = from_app if who == "app" else from_gateway
    say("ready")
    sys.stdin.readline()
    for batch in batches([witness(number) for number in range(int(many))], int(size)):
        keep(ledger, batch)


def hold(ledger: Ledger) -> None:
    """Hold the lease, and settle something, without an end."""
    with ledger.settling(30) as settlement:
        settle(settlement, calls(range(5)))
        say("holds")
        sys.stdin.read()


TASKS: dict[str, Callable[..., None]] = {
    "calls": settle_calls,
    "witness": settle_witness,
    "hold": hold,
}


def main(arguments: Sequence[str]) -> int:
    """Do it; 1 if the ledger fails, and say how."""
    factory, url, what, *more = arguments
    try:
        with closing(named(factory).ledger(url)) as ledger:
            TASKS[what](ledger, *more)
    except LedgerError as error:
        say(f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
