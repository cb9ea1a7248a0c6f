"""Fixtures every part shares: books in a folder of the test's own, and a look into the spool."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import costspan
from costspan.core import hooks, process, runtime
from costspan.core.journal import records, spool
from costspan.core.schema import Observation

_ASKED = os.environ.get("COSTSPAN_TEST_EXAMPLES")

# A slow machine fails no property, and each run tries the same examples, wherever it runs: without
# this, Hypothesis decides both by variables of the environment that say "this is CI". Who asks for
# a number of examples gets new ones.
settings.register_profile(
    "costspan",
    max_examples=int(_ASKED or 100),
    deadline=None,
    database=None,
    derandomize=_ASKED is None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("costspan")


@pytest.fixture(autouse=True)
def own_problems() -> Iterator[None]:
    """What a test's plugins did wrong is nothing to the tests after it."""
    known = [*hooks.problems]
    yield
    hooks.problems[:] = known


@pytest.fixture
def books_at(tmp_path: Path) -> Iterator[Path]:
    """A configured process: ledger and spool in a fresh folder, no background drain."""
    costspan.configure(
        ledger=tmp_path / "ledger.db",
        spool=tmp_path / "spool",
        spool_beside="off",  # a slow disk must not send records where these fixtures do not look
        background=False,
    )
    yield tmp_path
    runtime.recorder().rotate()


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch) -> process.Process:
    """The state of a process that has done nothing yet; afterwards the old one is back."""
    monkeypatch.setattr(process.this, "__dict__", vars(process.Process()))
    return process.this


@pytest.fixture
def recorded(books_at: Path) -> Callable[[], list[Observation]]:
    """What this test recorded so far, in order, read from the real spool files."""

    def read() -> list[Observation]:
        runtime.recorder().rotate()
        found: list[Observation] = []
        for path in spool.segments(books_at / "spool"):
            with spool.claim(path) as content:
                assert content is not None, f"{path} is still being written"
                writer = None
                for payload in content.payloads:
                    record = records.decode(payload, writer)
                    if isinstance(record, records.Opened):
                        writer = record.writer
                    elif isinstance(record, Observation):
                        found.append(record)
        return found

    return read
