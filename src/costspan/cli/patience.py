"""Books whose server says nothing are not waited for without end."""

from __future__ import annotations

import threading

from costspan.cli.settings import open_books
from costspan.core.config import Config
from costspan.core.ledger_errors import LedgerError
from costspan.core.ledger_urls import shown_url
from costspan.core.read.books import Books

OPEN_SECONDS = 25.0
"""Longer than a driver waits for two addresses of a server."""


def books_in_time(settings: Config) -> Books:
    """As `open_books`, but for a server that takes a connection and answers no question.

    Raises:
        LedgerMissing: if there is no ledger there.
        LedgerError: if it cannot be opened, or was not in time.
    """
    if settings.ledger_url.startswith("sqlite:"):
        return open_books(settings)  # a file answers, and belongs to the thread that opened it
    opening = _Opening(settings)
    opening.start()
    opening.join(OPEN_SECONDS)
    if opening.error is not None:
        raise opening.error
    if opening.found is None:
        raise LedgerError(
            f"the ledger {shown_url(settings.ledger_url)} has not answered for {OPEN_SECONDS:g} s"
        )
    return opening.found


class _Opening(threading.Thread):
    """Opens in a thread that nobody has to wait for."""

    def __init__(self, settings: Config) -> None:
        super().__init__(daemon=True)
        self._settings = settings
        self.found: Books | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Open; whatever is raised is for whoever waits."""
        try:
            self.found = open_books(self._settings)
        except BaseException as error:
            self.error = error
