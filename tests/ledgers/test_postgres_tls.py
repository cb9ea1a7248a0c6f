"""Over TLS: who is not who they say they are gets no records, and no password."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import psycopg
import pytest
from postgres_books import flat
from postgres_server import PostgresServer

from costspan.conformance.ledgers import server
from costspan.core.config import Config
from costspan.core.drain import drain
from costspan.core.ledger_errors import LedgerError
from costspan.core.recorder import Recorder
from costspan.core.settle.ledger import open_url

pytest.importorskip("cryptography", reason="cryptography is not installed")
from certificates import Authority

# What pip installs is built without TLS.
WITH_TLS = [
    *filter(None, [server.FOLDER]), *sorted(Path("/usr/lib/postgresql").glob("*/bin"))
]  # fmt: skip
PASSWORD = "se-cret@/:?#[ %"
_HBA = """
local   all all                         trust
hostssl all costspan_cert 127.0.0.1/32  cert
hostssl all all           127.0.0.1/32  scram-sha-256
host    all all           0.0.0.0/0     reject
"""


class TlsServer(PostgresServer):
    """On a port of 127.0.0.1 too, where it has a certificate and asks for a password or one."""

    programs: ClassVar[Path | None] = next(iter(WITH_TLS), None)

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        super().__init__(
            listen_addresses="127.0.0.1", port=str(self.port), ssl="on",
            ssl_ca_file="ours.crt", password_encryption="scram-sha-256",
        )  # fmt: skip
        self.ours, self.theirs = Authority(folder, "ours"), Authority(folder, "theirs")
        for each, name in zip(self.ours.sign("server", "127.0.0.1"), ("crt", "key"), strict=True):
            self._place(each, f"server.{name}")
        self._place(self.ours.path, "ours.crt")
        (self._data / "pg_hba.conf").write_text(_HBA)

    def _place(self, source: Path, name: str) -> None:
        placed = self._data / name
        shutil.copy(source, placed)
        placed.chmod(0o600)
        if self._user is not None:
            os.chown(placed, *self._user)

    def url(self, database: str, user: str = "postgres") -> str:
        return f"{super().url(database, user)}&port={self.port}"

    def over_tcp(self, user: str, database: str, **more: object) -> str:
        """The URL by which whoever is far away connects, and checks who answers."""
        said = {"sslmode": "verify-full", "sslrootcert": self.ours.path, **more}
        query = "&".join(f"{name}={value}" for name, value in said.items())
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}?{query}"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    if not WITH_TLS:
        pytest.skip("no PostgreSQL with TLS is installed; COSTSPAN_POSTGRES_BIN names one's bin")
    with TlsServer(tmp_path_factory.mktemp("authority")) as found:
        with psycopg.connect(found.url("postgres"), autocommit=True) as connection:
            for role in ("costspan_cert", "costspan_password"):
                connection.execute(f"CREATE ROLE {role} LOGIN SUPERUSER".encode())
            quoted = psycopg.sql.quote(PASSWORD)
            connection.execute(f"ALTER ROLE costspan_password PASSWORD {quoted}".encode())
        yield found


@pytest.fixture
def database(tls: TlsServer) -> Iterator[str]:
    url = tls.database()
    yield url.removeprefix("postgresql://postgres@/").partition("?")[0]
    tls.drop(url)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """One with a record in it."""
    folder = tmp_path / "spool"
    writer = Recorder(folder)
    writer.record(flat(1))
    writer.rotate()
    return folder


Given = Callable[[pytest.MonkeyPatch, Path, TlsServer], str]


def by_url(patch: pytest.MonkeyPatch, folder: Path, tls: TlsServer) -> str:
    from urllib.parse import quote

    return tls.over_tcp(f"costspan_password:{quote(PASSWORD, safe='')}", "{}")


def by_query(patch: pytest.MonkeyPatch, folder: Path, tls: TlsServer) -> str:
    from urllib.parse import quote

    return tls.over_tcp("costspan_password", "{}", password=quote(PASSWORD, safe=""))


def by_passfile(patch: pytest.MonkeyPatch, folder: Path, tls: TlsServer) -> str:
    known = folder / "pgpass"
    known.write_text(
        f"127.0.0.1:{tls.port}:*:costspan_password:{PASSWORD.replace(':', chr(92) + ':')}\n"
    )
    known.chmod(0o600)
    patch.setenv("PGPASSFILE", str(known))
    return tls.over_tcp("costspan_password", "{}")


def by_environment(patch: pytest.MonkeyPatch, folder: Path, tls: TlsServer) -> str:
    patch.setenv("PGPASSWORD", PASSWORD)
    return tls.over_tcp("costspan_password", "{}")


def by_service(patch: pytest.MonkeyPatch, folder: Path, tls: TlsServer) -> str:
    known = folder / "pg_service.conf"
    known.write_text(
        f"[books]\nhost=127.0.0.1\nport={tls.port}\nuser=costspan_password\n"
        f"password={PASSWORD}\nsslmode=verify-full\nsslrootcert={tls.ours.path}\n"
    )
    patch.setenv("PGSERVICEFILE", str(known))
    return "postgresql:///{}?service=books"


def by_certificate(patch: pytest.MonkeyPatch, folder: Path, tls: TlsServer) -> str:
    certificate, key = tls.ours.sign("costspan_cert")
    return tls.over_tcp("costspan_cert", "{}", sslcert=certificate, sslkey=key)


@pytest.mark.parametrize(
    "given", [by_url, by_query, by_passfile, by_environment, by_service, by_certificate]
)
def test_whoever_may_connect_settles(
    tls: TlsServer, database: str, spool: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, given: Given,
) -> None:  # fmt: skip
    url = given(monkeypatch, tmp_path, tls).replace("{}", database)
    assert drain(Config(ledger=url, spool=spool)).settled.observations == 1
    with closing(open_url(url, create=False)) as ledger:
        assert ledger.counts("events") == {"events": 1}
        assert "se-cret" not in ledger.url


def wrong_authority(tls: TlsServer) -> tuple[str, str]:
    other = tls.over_tcp("costspan_password", "{}", sslrootcert=tls.theirs.path)
    return other, "certificate verify failed"


def wrong_host(tls: TlsServer) -> tuple[str, str]:
    known = tls.over_tcp("costspan_password", "{}", hostaddr="127.0.0.1")
    return known.replace("@127.0.0.1", "@db.internal"), "does not match host name"


def no_tls(tls: TlsServer) -> tuple[str, str]:
    return tls.over_tcp("costspan_password", "{}", sslmode="disable"), "rejects connection"


def stranger(tls: TlsServer) -> tuple[str, str]:
    certificate, key = tls.theirs.sign("costspan_cert")
    said = "(unknown ca|certificate authentication failed|server closed the connection)"
    return tls.over_tcp("costspan_cert", "{}", sslcert=certificate, sslkey=key), said


def another(tls: TlsServer) -> tuple[str, str]:
    certificate, key = tls.ours.sign("somebody")
    url = tls.over_tcp("costspan_cert", "{}", sslcert=certificate, sslkey=key)
    return url, "certificate authentication failed"


def locked_key(tls: TlsServer) -> tuple[str, str]:
    certificate, key = tls.ours.sign("locked", password=b"right")
    more = {"sslcert": certificate, "sslkey": key, "sslpassword": "se-cret"}
    return tls.over_tcp("costspan_cert", "{}", **more), "could not load private key file"


def wrong_password(tls: TlsServer) -> tuple[str, str]:
    return tls.over_tcp("costspan_password:se-cret", "{}"), "password authentication failed"


@pytest.mark.parametrize(
    "refused",
    [wrong_authority, wrong_host, no_tls, stranger, another, locked_key, wrong_password],
)
def test_who_is_refused_is_told_why_and_keeps_the_records(
    tls: TlsServer, database: str, spool: Path, monkeypatch: pytest.MonkeyPatch,
    refused: Callable[[TlsServer], tuple[str, str]],
) -> None:  # fmt: skip
    if refused is not wrong_password:
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
    url, why = refused(tls)
    with pytest.raises(LedgerError, match=f"cannot be opened: .*{why}") as raised:
        drain(Config(ledger=url.replace("{}", database), spool=spool))
    assert "se-cret" not in str(raised.value)
    assert raised.value.__context__ is None
    assert len(list(spool.glob("*.seg"))) == 1
