"""Real books, recorded, drained and settled once; and a desk beside a copy of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import costspan
from costspan.adapter import Attempt
from costspan.core import runtime

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no folder there

from desk import HOSTILE, Desk

CONTRACT = """
[[price]]
model = "gpt-4o"
input = "2.50"
output = "10.00"

[[price]]
model = "gpt-4o-mini"
input = "0.15"
output = "0.60"
"""
TEN_YEARS_SECONDS = 10 * 365 * 86_400


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`empty.db`: a policy and nothing else. `shop.db`: two months of a small shop."""
    folder = tmp_path_factory.mktemp("books")
    contract = folder / "prices.toml"
    contract.write_text(CONTRACT, "utf-8")
    for name, record in (("empty", _open_nothing), ("shop", _open_shop)):
        costspan.configure(
            ledger=folder / f"{name}.db",
            spool=folder / name,
            prices=contract,
            open_ttl=TEN_YEARS_SECONDS,  # the call that never ends stays open, whatever the day
            background=False,
        )
        record()
        costspan.flush()
    yield folder
    runtime.recorder().rotate()


@pytest.fixture
def desk(
    templates: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Desk:
    desk = Desk(tmp_path, templates, capsys)
    monkeypatch.setenv("COSTSPAN_LEDGER", str(desk.ledger))
    monkeypatch.setenv("COSTSPAN_SPOOL", str(desk.spool))
    monkeypatch.setenv("COSTSPAN_OPEN_TTL", str(TEN_YEARS_SECONDS))
    for name in ("RULES", "PRICES", "CHARGES", "PROFILE", "CONFIG"):
        monkeypatch.delenv(f"COSTSPAN_{name}", raising=False)
    return desk


@pytest.fixture
def shop(desk: Desk) -> Desk:
    """A desk with the shop's books."""
    desk.use("shop")
    return desk


@pytest.fixture
def empty(desk: Desk) -> Desk:
    """A desk with books that hold nothing yet."""
    desk.use("empty")
    return desk


def _call(model: str, tokens: tuple[int, int], started: str, **facts: Any) -> None:
    attempt = Attempt.start(
        layer="gateway",
        source="shop",
        provider="openai",
        requested_model=model,
        started_at=at(started),
        attempts_hidden=0,
    )
    ended = {"ended_at": at(started) + 250_000_000, "executed_model": model}
    attempt.end(usage={"input": tokens[0], "output": tokens[1]}, **{**ended, **facts})


def _open_nothing() -> None:
    """No call yet."""


def _open_shop() -> None:
    """Costs, in USD: acme 0.0035 + 0.01 + 0.001, globex 0.007, the hostile one 0.15, platform
    0.000015, nobody 0.0025; one model has no price, one call never ended.
    """
    with costspan.attribute("acme", session="s-acme", request_id="req-1", labels={"team": "blue"}):
        _call("gpt-4o", (1000, 100), "2026-11-05T12:00:00", response_id="resp-acme")
        tool = costspan.tool("search", cost="0.01")
        with tool, costspan.work("step"):
            _call("gpt-4o", (200, 50), "2026-11-05T12:00:02")
    with costspan.attribute("globex", session="s-globex", labels={"team": "red"}):
        _call("gpt-4o", (2000, 200), "2026-10-20T08:00:00", response_id="resp-globex")
    with costspan.attribute(HOSTILE):
        _call("gpt-4o-mini", (1_000_000, 0), "2026-11-06T09:00:00")
    with costspan.work("router"):
        _call("gpt-4o-mini", (100, 0), "2026-11-06T10:00:00")
    _call("gpt-4o", (1000, 0), "2026-11-07T10:00:00")
    with costspan.attribute("acme"):
        _call("mystery-1", (10, 10), "2026-11-08T10:00:00")
        Attempt.start(layer="sdk", requested_model="gpt-4o", started_at=at("2026-11-08T11:00:00"))
