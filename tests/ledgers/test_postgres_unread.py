"""Books that could not be read to the end are not called bad."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg
import pytest
from full_books import full

from costspan.core.ledger_errors import LedgerUnread
from costspan.core.settle.ledger import open_url
from costspan.core.verify import verify


@pytest.mark.parametrize("at", ["rows", "events"])
def test_a_connection_that_is_lost_ends_a_verification(
    url: str, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("costspan.core.verify.EVENTS_PER_BATCH", 3)
    full(url).close()  # type: ignore[arg-type]
    with closing(open_url(url, create=False)) as ledger:
        lost: list[str] = []

        def tell(what: str, _: int) -> None:
            if what == at and not lost:
                lost.append(at)
                end_all_but_ours(url)

        with pytest.raises(LedgerUnread):
            list(verify(ledger, tell=tell))
        assert lost == [at]


def end_all_but_ours(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as administrator:
        sql = """
            SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
            WHERE datname = current_database() AND pid != pg_backend_pid()"""
        ended: list[tuple[Any, ...]] = administrator.execute(sql).fetchall()
        assert ended
