"""Bringing tables up to date: one at a time, whole or not at all, whoever is killed or waits."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from postgres_books import ask, begin, flat, keep

from costspan.core.config import Config
from costspan.core.drain import drain
from costspan.core.ledger_errors import LedgerError
from costspan.core.money import PICO
from costspan.core.rebuild import nets
from costspan.core.recorder import Recorder
from costspan.core.settle.ledger import Ledger, open_url
from costspan.plugins.ledgers.postgres import migrations
from costspan.plugins.ledgers.postgres.database import Database
from costspan.plugins.ledgers.postgres.place import Place

VERSION = "SELECT value FROM meta WHERE key = 'schema_version'"
TABLES = (
    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'costspan'::regnamespace"
)
SET_VERSION = "UPDATE meta SET value = '{}' WHERE key = 'schema_version'"
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


@pytest.fixture
def old(url: str) -> str:
    """The URL of a ledger in its first version, with nothing in it yet."""
    with closing(Database(Place(url))) as db:
        migrations.migrate(db, "costspan", until=1)
    return url


@pytest.fixture
def held_up(old: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Who holds up whoever writes the version, which is the last that a migration does."""
    with psycopg.connect(old) as connection:
        connection.execute("LOCK TABLE costspan.meta IN SHARE MODE")
        yield connection


def awaited(url: str, many: int) -> None:
    """Wait until so many wait for a lock."""
    until = time.monotonic() + 60
    while ask(url, WAITING) != [(many,)]:
        assert time.monotonic() < until


def is_old(url: str) -> bool:
    return ask(url, VERSION) == [("1",)] and ask(url, TABLES) == [("meta",)]


def is_sound(url: str) -> bool:
    """It takes records, and answers."""
    with closing(open_url(url, create=True)) as ledger:
        begin(ledger)
        keep(ledger, flat(1))
        return nets(ledger) == {("acme", "direct", "0000-00"): (PICO, PICO)}


def test_every_earlier_version_is_brought_up_to_date(url: str) -> None:
    for version in range(1, migrations.SCHEMA_VERSION):
        at = f"{url}&schema=v{version}"
        with closing(Database(Place(at))) as db:
            migrations.migrate(db, f"v{version}", until=version)
        with pytest.raises(LedgerError, match=f"has schema version {version}, this costspan reads"):
            open_url(at, create=False)
        assert is_sound(at)
        open_url(at, create=False).close()


def test_a_migration_that_is_killed_was_never_begun(
    old: str, held_up: psycopg.Connection[tuple[object, ...]]
) -> None:
    opens = "import sys; from costspan.core.settle.ledger import open_url as o;"
    process = subprocess.Popen([sys.executable, "-c", f"{opens} o(sys.argv[1], create=True)", old])
    awaited(old, 1)  # all its tables are made
    process.kill()
    process.wait()
    held_up.rollback()
    awaited(old, 0)
    assert is_old(old)
    assert is_sound(old)


def test_a_migration_that_fails_in_the_middle_leaves_the_version_before(old: str) -> None:
    ask(old, "CREATE TABLE reviews (in_the_way int)")  # of the last file
    with pytest.raises(LedgerError, match='relation "reviews" already exists'):
        open_url(old, create=True)
    assert ask(old, VERSION) == [("1",)]
    assert sorted(ask(old, TABLES)) == [("meta",), ("reviews",)]
    ask(old, "DROP TABLE reviews")
    assert is_sound(old)


def test_two_owners_at_once(old: str, held_up: psycopg.Connection[tuple[object, ...]]) -> None:
    with ThreadPoolExecutor(2) as pool:
        try:
            running = [pool.submit(open_url, old, create=True) for _ in range(2)]
            awaited(old, 2)  # one for the version, the other for the lease
        finally:
            held_up.rollback()
        for each in running:
            each.result(60).close()
    assert is_sound(old)


def test_two_who_make_it_at_once(url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        for each in pool.map(lambda _: open_url(url, create=True), range(4)):
            each.close()
    assert is_sound(url)


def test_who_settles_is_waited_for(ledger: Ledger, url: str) -> None:
    """A newer costspan comes while an older one settles: first the one, then the other."""
    with closing(Database(Place(url))) as newer, ThreadPoolExecutor(1) as pool:
        with ledger.settling(1) as settlement:
            settlement.move_cursor("somebody", 7)
            comes = pool.submit(migrations.migrate, newer, "costspan", until=99)
            awaited(url, 1)
            assert ask(url, VERSION) == [(str(migrations.SCHEMA_VERSION),)]
        comes.result(60)
    assert ask(url, VERSION) == [("99",)]
    assert ask(url, "SELECT posting FROM cursors") == [(7,)]


def test_an_older_settler_that_waited_leaves_its_records_in_the_spool(
    url: str, tmp_path: Path
) -> None:
    config = Config(ledger=url, spool=tmp_path / "spool")
    drain(config)
    writer = Recorder(config.spool)
    writer.record(flat(1))
    writer.rotate()
    with psycopg.connect(url) as newer, ThreadPoolExecutor(1) as pool:
        newer.execute(migrations.lease("costspan").encode())
        newer.execute(b"SET search_path = costspan")
        newer.execute(SET_VERSION.format(99).encode())
        waits = pool.submit(drain, config, timeout_seconds=60)
        awaited(url, 1)
        newer.commit()
        with pytest.raises(LedgerError, match="brought to schema version 99 meanwhile"):
            waits.result(60)
    assert len(list(config.spool.glob("*.seg"))) == 1
    ask(url, SET_VERSION.format(migrations.SCHEMA_VERSION))
    assert drain(config).settled.observations == 1


def test_a_newer_version_is_refused_also_in_the_middle(ledger: Ledger, url: str) -> None:
    keep(ledger, flat(1))
    ask(url, SET_VERSION.format(99))
    for create in (True, False):
        with pytest.raises(LedgerError, match=r"schema version 99.* a newer costspan wrote it"):
            open_url(url, create=create)
    with pytest.raises(LedgerError, match="brought to schema version 99 meanwhile"):
        keep(ledger, flat(2))
