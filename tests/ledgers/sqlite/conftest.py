"""A SQLite ledger with a policy, in a folder of the test's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from costspan.core.decide import load_profile
from costspan.core.journal.records import Policy
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger, open_url

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no folder there


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "books" / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with closing(open_url(f"sqlite:///{path}", create=True)) as opened:
        with opened.settling(1) as settlement:
            rules = load_profile("billing")
            settlement.keep_rule_set(rules)
            settle(settlement, [], [Policy(rules.sha256, (), 0, "test")])
        yield opened
