"""A SQLite ledger with a policy, in a folder of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from known_calls import begin

from costspan.core.settle.ledger import Ledger, open_url


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "books" / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with closing(open_url(f"sqlite:///{path}", create=True)) as opened:
        begin(opened)
        yield opened
