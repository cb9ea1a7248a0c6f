"""Behind PgBouncer: a pool of sessions, and one of transactions, whose sessions are anybody's."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest
from everything import everything
from full_books import call, full, keep
from postgres_server import PostgresServer

from costspan.core.config import Config
from costspan.core.drain import drain
from costspan.core.rebuild import copy_books, nets
from costspan.core.recorder import Recorder
from costspan.core.settle.ledger import open_url
from costspan.core.verify import Problem, verify

BOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
pytestmark = pytest.mark.skipif(BOUNCER is None, reason="pgbouncer is not installed")

_WAIT_SECONDS = 20
_INI = """
[databases]
* = host={server} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 4
server_round_robin = 1
ignore_startup_parameters = extra_float_digits
"""
"""One after the other each of its sessions answers: nobody has the same one twice."""


@pytest.fixture(scope="module", params=["transaction", "session"])
def pool(
    postgres: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[str]:
    """Where a pool listens, before the server of these tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("pool")
    ini = folder / "pgbouncer.ini"
    ini.write_text(_INI.format(server=postgres.folder, port=port, mode=request.param))
    nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    user = {} if nobody is None else {"user": nobody.pw_uid, "group": nobody.pw_gid}
    assert BOUNCER is not None
    process = subprocess.Popen(
        [BOUNCER, "-q", "/dev/stdin"], stdin=ini.open("rb"), cwd="/", **user,  # type: ignore[call-overload]
    )  # fmt: skip
    at = f"postgresql://postgres@127.0.0.1:{port}"
    until = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < until:
        with suppress(psycopg.OperationalError):
            psycopg.connect(f"{at}/postgres").close()
            break
    yield at
    process.terminate()
    process.wait()


@pytest.fixture
def pooled(pool: str, url: str) -> str:
    """The URL of the test's database, behind the pool."""
    name = url.removeprefix("postgresql://postgres@/").partition("?")[0]
    return f"{pool}/{name}"


def test_books_behind_a_pool_are_those_of_sqlite(pooled: str, url: str, tmp_path: Path) -> None:
    with (
        closing(full(pooled)) as ledger,  # type: ignore[arg-type]
        closing(full(tmp_path / "books.db")) as other,
        closing(open_url(url, create=False)) as direct,
    ):
        keep(ledger, *(call(number, "2026-05-01") for number in range(1000, 1600)))
        keep(other, *(call(number, "2026-05-01") for number in range(1000, 1600)))
        assert nets(ledger) == nets(other)
        assert everything(ledger) == everything(direct)
        assert [each for each in verify(ledger) if isinstance(each, Problem)] == []


def test_ledgers_of_two_schemas_are_not_taken_for_each_other(pooled: str, url: str) -> None:
    one, other = (f"{pooled}?schema={name}" for name in ("one", "other"))
    with (
        closing(full(one)) as first,  # type: ignore[arg-type]
        closing(open_url(other, create=True)) as second,
        closing(open_url(f"{url}&schema=one", create=False)) as direct,
    ):
        for number in (50, 51, 52):
            assert second.counts("events") == {"events": 0}
            keep(first, call(number, "2026-05-01"))
            assert everything(first) == everything(direct)


def test_the_sessions_of_a_pool_are_left_as_they_were(pooled: str) -> None:
    with closing(full(pooled)) as ledger:  # type: ignore[arg-type]
        everything(ledger)
    for _ in range(8):
        with psycopg.connect(pooled, autocommit=True) as anybody:
            assert anybody.execute("SHOW search_path").fetchone() == ('"$user", public',)


def test_a_rebuild_and_an_erasure_behind_a_pool(pooled: str) -> None:
    with closing(full(pooled)) as ledger:  # type: ignore[arg-type]
        before = list(ledger.events())
        with ledger.rebuilding() as fresh:
            copy_books(ledger, fresh)
        assert list(ledger.events()) == before
        assert ledger.compact()


def test_a_drain_through_a_pool(pooled: str, tmp_path: Path) -> None:
    config = Config(ledger=pooled, spool=tmp_path / "spool")
    writer = Recorder(config.spool)
    for number in range(30):
        writer.record(call(number))
    writer.rotate()
    assert drain(config).settled.observations == 30
    assert list(config.spool.glob("*.seg")) == []
