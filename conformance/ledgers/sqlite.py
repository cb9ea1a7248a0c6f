"""Ledgers of SQLite, a file each."""

from __future__ import annotations

from pathlib import Path

from costspan.conformance.ledgers.factory import LedgerFactory


class SqliteLedgers(LedgerFactory):
    """The ledger that comes with costspan."""

    name = "sqlite"

    def open(self, folder: Path) -> None:
        """Files of this folder are its ledgers."""
        self._folder = folder
        self._made = 0

    def url(self) -> str:
        """Another file."""
        self._made += 1
        return f"sqlite:///{self._folder}/ledger{self._made}.db"
