"""Whatever a server or a database was told by default, the books are right, or it is said."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from everything import everything
from full_books import call, full
from postgres_books import ask, flat, keep
from postgres_server import PostgresServer
from psycopg.conninfo import conninfo_to_dict

from costspan.core.config import Config
from costspan.core.drain import drain
from costspan.core.ledger_errors import LedgerError
from costspan.core.rebuild import copy_books, nets
from costspan.core.recorder import Recorder
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger, open_url
from costspan.core.verify import Problem, verify

ODD = {
    "TimeZone": "'Australia/Lord_Howe'",
    "DateStyle": "'SQL, DMY'",
    "IntervalStyle": "'sql_standard'",
    "bytea_output": "'escape'",
    "client_encoding": "'LATIN1'",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "extra_float_digits": "-15",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "session_replication_role": "replica",
    "search_path": "pg_catalog",
    "synchronous_commit": "off",
    "lock_timeout": "'5s'",
    "idle_in_transaction_session_timeout": "'30s'",
    "work_mem": "'64kB'",
    "jit_above_cost": "0",
    "enable_indexscan": "off",
    "plan_cache_mode": "force_generic_plan",
}


def set_for(url: str, **settings: str) -> None:
    """Whoever connects to this database from now on has these."""
    name = conninfo_to_dict(url)["dbname"]
    for setting, value in settings.items():
        ask(url, f"ALTER DATABASE {name} SET {setting} = {value}")


def test_books_are_the_same_whatever_a_database_is_told(url: str, tmp_path: Path) -> None:
    set_for(url, **ODD)
    with (
        closing(full(url)) as ledger,  # type: ignore[arg-type]
        closing(full(tmp_path / "books.db")) as other,
    ):
        assert nets(ledger) == nets(other)
        assert ledger.counts() == other.counts()
        assert list(ledger.roll_ups()) == list(ledger.added_up())
        assert [each for each in verify(ledger) if isinstance(each, Problem)] == []
        said = everything(ledger)
    name = conninfo_to_dict(url)["dbname"]
    ask(url, f"ALTER DATABASE {name} RESET ALL")
    with closing(open_url(url, create=False)) as plain:
        assert everything(plain) == said


@pytest.mark.parametrize("level", ["'repeatable read'", "serializable"])
def test_a_settler_sees_what_the_one_before_wrote(url: str, ledger: Ledger, level: str) -> None:
    """A state of the books from before the lease was given would lack it."""
    set_for(url, default_transaction_isolation=level)
    with closing(open_url(url, create=True)) as other:
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        with ledger.settling(1) as settlement:
            settle(settlement, [flat(1)])
            waiter = Waiter(other)
            while ask(url, waits) != [(1,)]:
                pass
        assert waiter.done() == ["w:1"]


class Waiter:
    """Settles the same call in a thread, and says whose records it found."""

    def __init__(self, ledger: Ledger) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._pool = ThreadPoolExecutor(1)
        self._settles = self._pool.submit(self._settle, ledger)

    def _settle(self, ledger: Ledger) -> list[str | None]:
        with ledger.settling(30) as settlement:
            return [each.oid for each in settlement.observations(["w:1"])]

    def done(self) -> list[str | None]:
        with self._pool:
            return self._settles.result(30)


def test_a_database_that_may_only_be_read_leaves_the_records_in_the_spool(
    url: str, tmp_path: Path
) -> None:
    config = Config(ledger=url, spool=tmp_path / "spool")
    drain(config)
    set_for(url, default_transaction_read_only="on")
    writer = Recorder(config.spool)
    for number in range(1, 30):
        writer.record(flat(number))
    writer.rotate()
    with pytest.raises(LedgerError, match=r"read-only transaction.*records stay in the spool"):
        drain(config)
    assert len(list(config.spool.glob("*.seg"))) == 1
    with closing(open_url(url, create=False)) as reader:
        assert reader.counts("events") == {"events": 0}
    set_for(url.replace("?", "?options=-c%20default_transaction_read_only%3Doff&"),
            default_transaction_read_only="off")  # fmt: skip
    assert drain(config).settled.observations == 29


def test_limits_of_statements_do_not_hold_a_settler_up(url: str) -> None:
    """They would end the same settlement again and again."""
    set_for(url, statement_timeout="800")
    with closing(open_url(url, create=True)) as ledger, ledger.settling(30) as settlement:
        assert settlement.session_owners([]) == {}
        assert ledger.db.rows("SELECT 1 FROM pg_sleep(1)") == [(1,)]  # type: ignore[attr-defined]


def test_a_rebuild_takes_as_long_as_it_takes(url: str) -> None:
    with closing(full(url)) as ledger:  # type: ignore[arg-type]
        before = list(ledger.events())
    set_for(url, idle_in_transaction_session_timeout="'300ms'")
    with closing(open_url(url, create=True)) as ledger:
        with ledger.rebuilding() as fresh:
            copy_books(ledger, fresh)
            ask(url, "SELECT pg_sleep(0.5)")
        assert list(ledger.events()) == before
        lost = pytest.raises(LedgerError, match=r"idle-in-transaction timeout.*stay in the spool")
        with lost, ledger.settling(1) as settlement:  # a settler that stands still is given up
            settle(settlement, [flat(100)])
            ask(url, "SELECT pg_sleep(0.5)")
            settle(settlement, [flat(101)])
        keep(ledger, flat(100))
        assert [each.event.id for each in ledger.events(["a100"])] == ["a100"]


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_a_database_of_another_encoding_is_refused(
    postgres: PostgresServer, tmp_path: Path, encoding: str
) -> None:
    name = f"of_{encoding.lower()}"
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        sql = f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        connection.execute(sql.encode())
    config = Config(ledger=postgres.url(name), spool=tmp_path / "spool")
    writer = Recorder(config.spool)
    writer.record(call(1))
    writer.rotate()
    with pytest.raises(LedgerError, match=f"has encoding {encoding}: a ledger needs UTF8"):
        drain(config)
    assert len(list(config.spool.glob("*.seg"))) == 1
    postgres.drop(postgres.url(name))
