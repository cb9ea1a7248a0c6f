"""The ledgers that we ship pass the suite of ledgers; those that are wrong on purpose do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from costspan.cli import main
from costspan.conformance import LedgerConformance
from costspan.conformance.ledgers.broken import BROKEN, BrokenLedgers
from costspan.conformance.ledgers.factory import name_of
from costspan.conformance.ledgers.postgres import PostgresLedgers
from costspan.conformance.ledgers.sqlite import SqliteLedgers

TESTS = Path(__file__).parents[1]

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")


class TestSqlite(LedgerConformance):
    factory_class = SqliteLedgers


@pytest.mark.skipif(not PostgresLedgers.is_there(), reason="no PostgreSQL is installed")
class TestPostgres(LedgerConformance):
    factory_class = PostgresLedgers

    @pytest.mark.parametrize(
        "file", ["golden/merge.json", "golden/ownership.json", "settle/scenarios.json"]
    )
    def test_a_golden_file_is_replayed_in_schemas_that_are_removed(
        self, factory: PostgresLedgers, capsys: pytest.CaptureFixture[str], file: str
    ) -> None:
        with psycopg.connect(factory.database) as asked:
            schemas = "SELECT nspname FROM pg_namespace ORDER BY 1"
            before = asked.execute(schemas).fetchall()
            options = ["--shuffle", "1", "--batches", "3", "--ledger", factory.database]
            assert main(["replay", str(TESTS / file), *options]) == 0
            assert " 0 differ" in capsys.readouterr().out
            assert asked.execute(schemas).fetchall() == before


def suite(folder: Path, ledger: str, *more: str) -> subprocess.CompletedProcess[str]:
    """The suite as a stranger runs it."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-c", os.devnull]
    command += ["--rootdir", str(folder), "--pyargs", "costspan.conformance"]
    command += ["--ledger", ledger, *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the suite says of each broken ledger: each plays the test that was made for it."""
    folder = tmp_path_factory.mktemp("broken")
    more = [word for each in BROKEN for word in ("--ledger", name_of(each))][2:]
    asked = [f"({class_of(each)} and {each.caught_by})" for each in BROKEN]
    more += ["-k", " or ".join(asked), "--junitxml", str(folder / "said.xml")]
    suite(folder, name_of(BROKEN[0]), *more)
    found: dict[str, str] = {}
    for case in ElementTree.parse(folder / "said.xml").iter("testcase"):
        name = case.attrib["classname"].rpartition(".")[2]
        found[name] = found.get(name, "") + "".join(failed.text or "" for failed in case)
    return found


def class_of(broken: type[BrokenLedgers]) -> str:
    return "Test_" + broken.name.replace("-", "_")


@pytest.mark.parametrize("broken", BROKEN, ids=lambda kind: kind.name)
def test_a_broken_ledger_is_caught_and_told_its_fault(
    broken: type[BrokenLedgers], told: dict[str, str]
) -> None:
    assert broken.says in told[class_of(broken)]


def test_a_strangers_ledger_is_checked_from_their_folder(tmp_path: Path) -> None:
    """Nothing of theirs is installed: the other processes of the suite find it all the same."""
    (tmp_path / "mine.py").write_text(
        "from costspan.conformance.ledgers.sqlite import SqliteLedgers\n\n"
        "class Mine(SqliteLedgers):\n"
        '    name = "mine"\n',
        "utf-8",
    )
    said = suite(tmp_path, "mine:Mine", "-k", "killed_leaves or finds or overlapping")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "3 passed" in said.stdout


def test_what_is_no_factory_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("other = 7\n", "utf-8")
    said = suite(tmp_path, "mine:other")
    assert said.returncode == 4
    assert "--ledger mine:other: 7 is no subclass of LedgerFactory" in said.stderr


def test_two_factories_of_one_name_are_refused(tmp_path: Path) -> None:
    one = name_of(SqliteLedgers)
    said = suite(tmp_path, one, "--ledger", one)
    assert said.returncode == 4
    assert "2 factories are named 'sqlite'" in said.stderr


@pytest.mark.parametrize("name", ["test_threads_may_race", "new_ledger"])
def test_nothing_of_the_suite_may_be_overridden(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} is overridden"):
        type("TestMine", (LedgerConformance,), {name: None})


def test_what_is_no_factory_is_refused() -> None:
    with pytest.raises(TypeError, match="factory_class is a subclass of LedgerFactory"):
        type("TestMine", (LedgerConformance,), {"factory_class": "sqlite"})
