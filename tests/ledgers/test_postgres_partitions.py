"""A journal in partitions: the statements of docs/postgres.md, and books that notice nothing."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import msgspec
from full_books import call, full, keep
from postgres_books import ask, begin, flat
from postgres_server import PostgresServer

from costspan.core.rebuild import copy_books, nets
from costspan.core.schema import Observation
from costspan.core.settle.ledger import Ledger, open_url
from costspan.core.verify import Problem, verify
from costspan.plugins.ledgers.postgres import migrations
from costspan.plugins.ledgers.postgres.database import Database
from costspan.plugins.ledgers.postgres.place import Place

PAGE = Path(__file__).parents[2] / "docs" / "postgres.md"
BY_PARTITION = "SELECT tableoid::regclass::text, count(*) FROM journal GROUP BY 1 ORDER BY 1"
KIND = "SELECT relkind FROM pg_class WHERE oid = 'costspan.journal'::regclass"
PARTITIONED, PLAIN = [("p",)], [("r",)]
WRITERS = ("x", "y", "z", "u", "v", "t")
"""One more than there are ranges to come."""


def recipe() -> str:
    """What the page says of large ledgers; of one writer a range, so that tests reach them all."""
    said = PAGE.read_text("utf-8").partition("## Large ledgers")[2].partition("\n## ")[0]
    (sql,) = re.findall(r"```sql\n(.*?)```", said, re.DOTALL)
    narrow: str = sql.replace("bigint := 10000;", "bigint := 1;")
    assert narrow != sql
    return narrow


def of(writer: str, number: int, phase: str, **facts: object) -> Observation:
    """A call's START or END, as this writer saw it."""
    seq = 2 * number + (phase == "end")
    if phase == "start":
        facts |= {"usage": None, "usage_source": None, "provider_result": None}
    seen = call(number, "2026-05-01", phase=phase, **facts)
    return msgspec.structs.replace(seen, oid=f"{writer}:{seq}", writer=writer, seq=seq)


def settle_both(*ledgers: Ledger) -> None:
    """Writers that come after the partitions; every record twice, and some with another payload."""
    for at, writer in enumerate(WRITERS):
        starts = [of(writer, 100 * at + each, "start") for each in range(100, 110)]
        ends = [of(writer, 100 * at + each, "end") for each in range(100, 110)]
        other = of(writer, 100 * at + 100, "end", usage={"input": 7})
        # Of a writer that was there before, whose range is another; and of those before it.
        late = [of("w", 900 + at, phase) for phase in ("start", "end")]
        for ledger in ledgers:
            keep(ledger, *starts)
            keep(ledger, *ends, *late, *starts)
            keep(ledger, other, *ends)


def problems(ledger: Ledger) -> list[Problem]:
    return [each for each in verify(ledger) if isinstance(each, Problem)]


def test_partitions_change_nothing_in_the_books(url: str, tmp_path: Path) -> None:
    with closing(full(url)) as ledger, closing(full(tmp_path / "books.db")) as other:  # type: ignore[arg-type]
        ask(url, recipe())  # with the ledger open
        assert ask(url, KIND) == PARTITIONED
        settle_both(ledger, other)
        partitions = {str(name) for name, _ in ask(url, BY_PARTITION)}
        assert {"journal_before", "journal_later"} < partitions
        assert len(partitions) == len(WRITERS), "two of the writers are in the last"
        assert nets(ledger) == nets(other)
        assert ledger.counts() == other.counts()
        assert ledger.counts()["conflict"] >= len(WRITERS)
        assert problems(ledger) == []
        before = nets(ledger)
        with ledger.rebuilding() as fresh:
            copy_books(ledger, fresh)
        assert ask(url, KIND) == PLAIN, "a rebuild makes one table; the page says so"
        ask(url, recipe())
        settle_both(ledger)
        assert nets(ledger) == before
        assert problems(ledger) == []


def test_an_older_ledger_in_partitions_is_brought_up_to_date(url: str) -> None:
    with closing(Database(Place(url))) as db:
        migrations.migrate(db, "costspan", until=2)
    ask(url, recipe())
    with closing(open_url(url, create=True)) as ledger:
        begin(ledger)
        keep(ledger, flat(1))
        keep(ledger, flat(1), flat(2))
        assert ledger.counts("observations") == {"observations": 2}
    assert ask(url, KIND) == PARTITIONED


def test_whoever_might_use_the_journal_still_may(postgres: PostgresServer, url: str) -> None:
    with closing(open_url(url, create=True)):
        ask(url, "CREATE ROLE partition_settler; CREATE ROLE partition_reader")
        ask(url, "GRANT SELECT, INSERT, DELETE ON journal TO partition_settler")
        ask(url, "GRANT SELECT ON journal TO partition_reader")
    rights = """
        SELECT grantee, privilege_type FROM information_schema.table_privileges
        WHERE table_name = 'journal' AND grantee LIKE 'partition_%' ORDER BY 1, 2"""
    before = ask(url, rights)
    ask(url, recipe())
    assert ask(url, rights) == before
    assert len(before) == 4
    for role in ("partition_settler", "partition_reader"):
        ask(url, f"DROP OWNED BY {role}; DROP ROLE {role}")
