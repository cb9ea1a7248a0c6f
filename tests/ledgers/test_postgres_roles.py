"""The roles of docs/postgres.md, made by the statements that stand there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from everything import everything
from full_books import call, full, keep
from postgres_server import PostgresServer
from psycopg.conninfo import conninfo_to_dict

from costspan.cli import main
from costspan.core.ledger_errors import LedgerError
from costspan.core.privacy.erasure import erase
from costspan.core.rebuild import copy_books
from costspan.core.retention import prune, restore
from costspan.core.settle.close import close_period
from costspan.core.settle.ledger import open_url
from costspan.core.verify import Problem, verify

PAGE = Path(__file__).parents[2] / "docs" / "postgres.md"
OWNER, SETTLER, READER = ("costspan_owner", "costspan_settler", "costspan_reader")
ADMINISTRATOR = "administrator"
"""As a cloud's: it owns the database and may create roles, and is no superuser."""


@pytest.fixture(scope="module")
def roles(postgres: PostgresServer) -> Iterator[dict[str, str]]:
    """Role -> the URL it connects by, of a ledger that was set up as the page says."""
    administrator, owner, *_ = re.findall(r"```sql\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    url = postgres.database()
    roles = (ADMINISTRATOR, OWNER, SETTLER, READER)
    urls = {role: url.replace("postgres@", f"{role}@", 1) for role in roles}
    run(url, f"CREATE ROLE {ADMINISTRATOR} LOGIN CREATEROLE")
    run(url, f"ALTER DATABASE {conninfo_to_dict(url)['dbname']} OWNER TO {ADMINISTRATOR}")
    run(urls[ADMINISTRATOR], administrator)
    with closing(open_url(urls[OWNER], create=True)):
        pass
    run(urls[OWNER], owner)
    full(urls[SETTLER]).close()  # type: ignore[arg-type]
    yield urls
    postgres.drop(url)


def run(url: str, sql: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.encode())


def test_a_settler_settles_in_big_batches_and_small_ones(roles: dict[str, str]) -> None:
    with closing(open_url(roles[SETTLER], create=True)) as ledger:
        keep(ledger, *(call(number, "2026-05-01") for number in range(1000, 3000)))
        keep(ledger, call(3, usage={"input": 8, "output": 8}))  # a conflict with what is kept
        keep(ledger, call(1000, "2026-05-01", attempt_id="a1001"))
        assert [each for each in verify(ledger) if isinstance(each, Problem)] == []
        assert erase(ledger, user="person-2", by="ann", reason="asked", now_ns=9).is_compact


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE postings SET cost = 0",
        "DELETE FROM postings",
        "TRUNCATE postings",
        "ALTER TABLE postings DISABLE TRIGGER ALL",
        "DELETE FROM controls",
        "UPDATE controls SET payload = ''",
        "UPDATE journal SET payload = ''",
        "DELETE FROM invoices",
        "UPDATE reviews SET note = ''",
        "UPDATE meta SET value = '1'",
        "DROP TABLE events",
        "CREATE TABLE costspan.mine (x int)",
    ],
)
def test_what_a_settler_may_not(roles: dict[str, str], sql: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        run(roles[SETTLER], f"SET search_path = costspan; {sql}")


def test_a_reader_reads_everything_but_persons_and_writes_nothing(roles: dict[str, str]) -> None:
    with closing(open_url(roles[READER], create=False)) as ledger:
        with closing(open_url(roles[SETTLER], create=False)) as other:
            assert everything(ledger) == everything(other)
        with pytest.raises(LedgerError, match="permission denied"):
            ledger.persons.names(["p:1"])
        with pytest.raises(LedgerError, match=r"permission denied.*records stay in the spool"):
            keep(ledger, call(5000))
        assert list(ledger.damaged()) == []
        assert not ledger.persons.is_readable()


def test_a_settler_prunes_and_brings_back(roles: dict[str, str], tmp_path: Path) -> None:
    with closing(open_url(roles[SETTLER], create=False)) as ledger:
        close_period(ledger, "2026-05", "ann", "month's end", 2_000_000_000 * 10**9)
        before = list(ledger.roll_ups())
        pruned = prune(ledger, "2026-06", tmp_path, "ann", "space", now_ns=9)
        assert pruned is not None
        assert restore(ledger, tmp_path).observations == pruned.observations > 2000
        assert list(ledger.roll_ups()) == before
        assert [each for each in verify(ledger) if isinstance(each, Problem)] == []


def test_an_auditor_verifies_as_reader_and_is_told_what_was_not_looked_at(
    roles: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--ledger", roles[READER], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["not_looked_at"] == ["persons"]
    assert main(["verify", "--ledger", roles[SETTLER], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["not_looked_at"] == []
    assert main(["report", "--by", "user", "--ledger", roles[READER]]) == 0
    said = capsys.readouterr()
    assert "pseudonyms: this role may not" in said.err
    assert "p:" in said.out


def test_a_rebuild_by_the_owner_leaves_everybody_what_they_may(roles: dict[str, str]) -> None:
    with (
        closing(open_url(roles[SETTLER], create=True)) as settler,
        closing(open_url(roles[READER], create=False)) as reader,
    ):
        with pytest.raises(LedgerError, match="permission denied"), settler.rebuilding():
            pytest.fail("a settler rebuilds")
        before = everything(reader)
        with closing(open_url(roles[OWNER], create=True)) as owner, owner.rebuilding() as fresh:
            copy_books(owner, fresh)
        after = everything(reader)
        for each in (before, after):  # revisions are not replayed
            for key in ("postings", "some postings", "of an event", "sealed", "sealed after"):
                del each[key]
            del each["counts"]["postings"], each["given_away"], each["controls"]
        assert before == after
        keep(settler, call(6000, "2026-05-02"))
        assert "a6000" in {each.event.id for each in reader.events()}
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        run(roles[SETTLER], "UPDATE costspan.postings SET cost = 0")
