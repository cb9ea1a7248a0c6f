"""What a play recorded is settled in other ledgers too: those that make other books are named."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from costspan.conformance.drivers.manual import Manual
from costspan.conformance.ledgers import broken
from costspan.conformance.ledgers.answers import whole_books
from costspan.conformance.ledgers.books import begin, calls, keep
from costspan.conformance.ledgers.differing import first_difference
from costspan.conformance.ledgers.factory import LedgerFactory
from costspan.conformance.ledgers.postgres import PostgresLedgers
from costspan.conformance.ledgers.sqlite import SqliteLedgers
from costspan.conformance.provider import LoopbackProvider
from costspan.conformance.suite.elsewhere import OtherBooks
from costspan.conformance.suite.run import run
from costspan.conformance.suite.script import shipped

SCENARIOS = {scenario.id: scenario for scenario in shipped()}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manual]:
    """A driver, open."""
    driver = Manual()
    with LoopbackProvider() as provider:
        driver.open(provider, tmp_path_factory.mktemp("host"))
        yield driver
        driver.close()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[LedgerFactory]]:
    """Other ledgers that are right."""
    kinds: list[type[LedgerFactory]] = [SqliteLedgers]
    if PostgresLedgers.is_there():
        kinds.append(PostgresLedgers)
    made: list[LedgerFactory] = []
    for kind in kinds:
        made.append(kind())
        made[-1].open(tmp_path_factory.mktemp("ledgers"))
    yield made
    for each in made:
        each.close()


# A blocked answer, rewritten; a stream that is left, and so swept; three owners; tools.
@pytest.mark.parametrize("name", ["W06", "S05", "W20", "W22"])
def test_the_same_books_in_every_ledger(
    name: str, host: Manual, elsewhere: list[LedgerFactory], tmp_path: Path
) -> None:
    assert run(SCENARIOS[name], "async", host, tmp_path, elsewhere) is None


class CountsOneLess(broken.BrokenLedgers):
    """Of everything there is one less."""

    name = "counts-one-less"

    class Forgetful(broken.BrokenLedger):
        def counts(self, *names: str) -> dict[str, int]:
            return {name: number - (number > 0) for name, number in super().counts(*names).items()}

    broken = Forgetful


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (broken.LosesAPosting, "  postings ("),
        (CountsOneLess, "  counts['observations']: expected "),
    ],
)
def test_other_books_are_named_with_where_they_part(
    kind: type[broken.BrokenLedgers], says: str, host: Manual, tmp_path: Path
) -> None:
    factory = kind()
    factory.open(tmp_path)
    (tmp_path / "play").mkdir()
    with pytest.raises(OtherBooks) as found:
        run(SCENARIOS["W22"], "sync", host, tmp_path / "play", [factory])
    text = str(found.value)
    assert f"{factory.name} makes other books than sqlite of the same records" in text
    assert says in text
    assert (tmp_path / "play" / "recorded").is_dir()


def test_a_difference_is_the_first_place_that_is_not_the_same(tmp_path: Path) -> None:
    factory = SqliteLedgers()
    factory.open(tmp_path)
    answers = []
    for many in (3, 4):
        with closing(begin(factory.ledger(factory.url()))) as ledger:
            keep(ledger, calls(range(many)))
            answers.append(whole_books(ledger))
    three, four = (each["counts"]["events"] for each in answers)
    assert (three, four) == (3, 4)
    said = first_difference(answers[0]["events"], answers[1]["events"])
    assert said.startswith(" (4 expected, 3 found)[3]: expected Settled(event=Event(id='a3'")
    assert said.endswith(", not found")
    said = first_difference({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]})
    assert said == "['a'][1]['b']: expected 3, found 2"
    assert first_difference((1, 2), [1, 2]) == ": expected [1, 2], found (1, 2)"


def test_a_hosts_known_failure_excuses_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from costspan.conformance.drivers.manual import Manual\n\n"
        "class Mine(Manual):\n"
        '    name = "mine"\n'
        '    known_failures = {"W22": "this host cannot do it, or so we thought"}\n',
        "utf-8",
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-c", os.devnull]
    command += ["--rootdir", str(tmp_path), "--pyargs", "costspan.conformance"]
    command += ["--adapter", "mine:Mine", "-k", "W22-sync"]
    command += ["--ledger", "costspan.conformance.ledgers.broken:LosesAPosting"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert said.returncode == 1
    assert "W22 on mine (sync): loses-a-posting makes other books than sqlite" in said.stdout
    assert "FAIL" in said.stdout
