"""A real PostgreSQL server for the tests: one a session, started from what `pip` installed.

It is the one that the conformance suite starts; see there for its versions.
"""

from __future__ import annotations

import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed")

from costspan.conformance.ledgers import server


class PostgresServer(server.PostgresServer):
    """A server; where none is installed, or no psycopg, what needs one is skipped."""

    def __init__(self, **settings: str) -> None:
        try:
            super().__init__(**settings)
        except server.NoPrograms as error:
            pytest.skip(str(error))
