"""What a play recorded, settled in other ledgers too: whatever keeps the books, they are the same.

The host is played once. Its spools are copied before the first ledger takes them, and every other
ledger drains a copy, folder by folder, as the first one did.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

from costspan.conformance.ledgers.answers import whole_books
from costspan.conformance.ledgers.differing import differences
from costspan.conformance.ledgers.factory import LedgerFactory
from costspan.core.config import Config
from costspan.core.drain import drain_into
from costspan.core.settle.ledger import Ledger


class OtherBooks(AssertionError):
    """A ledger made other books of the same records; the text says which, and where."""


class Recorded:
    """What was recorded and is in no ledger yet: copies of spools, by what is drained at once."""

    def __init__(self, spools: Iterable[Sequence[Path]], folder: Path) -> None:
        self.folder = folder
        self._names = [[f"{at}.{n}" for n in range(len(some))] for at, some in enumerate(spools)]
        folder.mkdir()
        for names, some in zip(self._names, spools, strict=True):
            for name, spool in zip(names, some, strict=True):
                if spool.exists():
                    shutil.copytree(spool, folder / name)

    def again(self, folder: Path) -> list[list[Path]]:
        """The same once more, for one who will drain them."""
        shutil.copytree(self.folder, folder)
        return [[folder / name for name in names] for names in self._names]


def settle_elsewhere(
    factories: Sequence[LedgerFactory],
    settings: Config,
    recorded: Recorded,
    now_ns: int,
    books: Ledger,
) -> None:
    """Settle what was recorded in other ledgers.

    Args:
        factories: What makes them.
        settings: What decides, as in these books.
        recorded: All that these books are made of.
        now_ns: When what nobody saw end was swept in these books.
        books: What is expected.

    Raises:
        OtherBooks: if one of them answers otherwise.
    """
    expected = whole_books(books) if factories else {}
    lines: list[str] = []
    for at, factory in enumerate(factories):
        spools = recorded.again(recorded.folder.with_name(f"again{at}"))
        if wrong := differences(_books(factory, settings, spools, now_ns), expected):
            lines.append(f"{factory.name} makes other books than sqlite of the same records")
            lines += [f"  {each}" for each in wrong]
    if lines:
        raise OtherBooks("\n".join([*lines, f"  kept    the records: {recorded.folder}"]))


def _books(
    factory: LedgerFactory, settings: Config, spools: Iterable[Sequence[Path]], now_ns: int
) -> dict[str, object]:
    """All that another ledger answers, once these are drained."""
    url = factory.empty()
    try:
        with closing(factory.ledger(url)) as ledger:
            *others, own = spools
            for at_once in others:
                drain_into(ledger, settings, at_once)
            drain_into(ledger, settings, own, sweep_older_seconds=0, now_ns=now_ns)
            return whole_books(ledger)
    finally:
        factory.gone(url)
