"""A password is never shown: not by an error, not by a command, whatever became of the URL."""

from __future__ import annotations

import logging
import traceback
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from postgres_books import flat
from postgres_server import PostgresServer

from costspan.cli import main
from costspan.core import hooks
from costspan.core.ledger_errors import LedgerError
from costspan.core.recorder import Recorder
from costspan.core.settle.ledger import open_url

SECRET = "se-cret"
WHOLE = "p%@:/?#[]& se-cret"
ENCODED = quote(WHOLE, safe="")
MALFORMED = [
    "postgresql://me:p@se-cret@db/x",
    "postgresql://me:p:se-cret/x@127.0.0.1:1/x",
    "postgresql://me:p/se-cret@127.0.0.1:1/x",
    "postgresql://me:5432/se-cret@127.0.0.1:1/x",
    "postgresql://me:p?se-cret@127.0.0.1:1/x",
    "postgresql://me:p#se-cret@127.0.0.1:1/x",
    "postgresql://me:p[se-cret@127.0.0.1:1/x",
    "postgresql://me:%zzse-cret@127.0.0.1:1/x",
    "postgresql://me:%00se-cret@127.0.0.1:1/x",
    "postgresql://me@127.0.0.1:se-cret/x",
    "postgresql://me:se-cret@127.0.0.1:1/x?nonsense=1",
    "postgresql://me:se-cret@127.0.0.1:1/x?sslmode",
    "postgresql+psycopg://me:se-cret@127.0.0.1:1/x",
    "postgres+asyncpg://me:p@se-cret@127.0.0.1:1/x",
]
UNREACHABLE = [
    f"postgresql://me:{ENCODED}@127.0.0.1:1/x",
    f"postgresql://me@127.0.0.1:1/x?password={ENCODED}&sslpassword=se-cret",
    f"postgresql://me:{ENCODED}@127.0.0.1:1,127.0.0.1:2/x?sslmode=verify-full&sslrootcert=/none",
]
COMMANDS = [
    ["drain"],
    ["doctor"],
    ["doctor", "--json"],
    ["report"],
    ["report", "--json"],
    ["verify"],
    ["rebuild"],
    ["invoices", "list"],
    ["explain", "a1"],
    ["close", "2026-01", "--by", "ann", "--reason", "x"],
]


@pytest.mark.parametrize("url", [*MALFORMED, *UNREACHABLE])
@pytest.mark.parametrize("create", [True, False])
def test_what_cannot_be_opened_is_said_without_the_password(
    url: str, create: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(LedgerError, match=r"cannot be opened|no plugin opens") as raised:
        open_url(url, create=create)
    told = "".join(traceback.format_exception(raised.value, limit=0))
    assert SECRET not in told
    assert SECRET not in caplog.text
    assert not [each for each in hooks.problems if SECRET in repr(each)]


def test_what_to_do_about_a_malformed_one_is_said() -> None:
    with pytest.raises(LedgerError, match=r"@ %40.*/ %2F"):
        open_url(MALFORMED[0], create=True)
    with pytest.raises(LedgerError, match="libpq knows no parameter sslmoed, chanel"):
        open_url("postgresql://me:secret@db/x?sslmoed=1&chanel=2&port=5", create=True)


@pytest.mark.parametrize("url", [MALFORMED[0], MALFORMED[6], MALFORMED[13], UNREACHABLE[0]])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_shows_a_password(
    url: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spool = tmp_path / "spool"
    writer = Recorder(spool)
    writer.record(flat(1))
    writer.rotate()
    assert main([*command, "--ledger", url, "--spool", str(spool)]) != 0
    said = "".join(capsys.readouterr())
    assert SECRET not in said
    assert quote(SECRET, safe="") not in said
    assert len(list(spool.glob("*.seg"))) == 1


def test_a_ledger_that_answers_shows_none_either(
    postgres: PostgresServer, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = url.replace("postgres@", f"postgres:{ENCODED}@")
    with closing(open_url(known, create=True)) as ledger:
        assert ledger.url == url
    for command in (["drain"], ["doctor"], ["doctor", "--json"], ["report", "--json"]):
        main([*command, "--ledger", known, "--spool", str(tmp_path / "spool")])
        assert SECRET not in "".join(capsys.readouterr())


def test_what_was_typed_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(SystemExit):
        main(["drain", f"postgresql://me:{WHOLE}@db/x".replace(" ", "")])
    assert SECRET not in "".join(capsys.readouterr())


def test_a_server_that_repeats_the_password_is_not_quoted(
    postgres: PostgresServer, url: str
) -> None:
    """As it does where a password is the name of a table, or of somebody."""
    known = url.replace("postgres@", "se-cret:se-cret@")
    with pytest.raises(LedgerError, match=r'cannot be opened: .*"\*\*\*"') as raised:
        open_url(known, create=True)
    assert str(raised.value).count(SECRET) == 1, "the name alone, which is shown"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(b'CREATE ROLE "se-cret" LOGIN')
    with pytest.raises(LedgerError, match=r"permission denied for database") as raised:
        open_url(known, create=True)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(b'DROP ROLE "se-cret"')
