"""Public price lists in one ledger, of machines that have other ones or other versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.metadata import PackageNotFoundError
from itertools import count
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from costspan.core import hooks, policy
from costspan.core.config import Config
from costspan.core.prices import PriceBook
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger, open_url

Drains = Callable[..., list[str]]
NAMES = {"litellm": "litellm", "genai": "genai-prices"}


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with closing(open_url("sqlite:///:memory:", create=True)) as opened:
        yield opened


@pytest.fixture
def drains(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drains]:
    """A drain by a machine that has these lists installed; the lists in force then."""
    plugins, moments = hooks.plugins(), count(1)
    real = {name: plugins.unregister(name=name) for name in NAMES.values()}
    here: dict[str, str] = {}

    @hooks.hookimpl
    def prices() -> list[PriceBook]:
        table = {"m": {"input": "1"}}
        return [
            msgspec.structs.replace(PriceBook.from_table(name, table), source_version=version)
            for name, version in here.items()
        ]

    def version(distribution: str) -> str:
        if distribution not in here:
            raise PackageNotFoundError(distribution)
        return here[distribution]

    def drain(**versions: str) -> list[str]:
        here.clear()
        here.update({NAMES[name]: version for name, version in versions.items()})
        at = next(moments)
        settings = Config(ledger=":memory:", spool=tmp_path, since_ns=at)
        with ledger.settling(1) as settlement:
            settle(settlement, [], policy.propose(settlement, settings, at))
            known = {sha: f"{name} {of}" for sha, name, of in settlement.price_book_versions()}
            return [known[sha] for sha in settlement.policies()[-1].books]

    module = ModuleType("lists")
    module.prices = prices  # type: ignore[attr-defined]  # a module made by hand
    plugins.register(module, "lists")
    monkeypatch.setattr(policy, "version", version)
    yield drain
    plugins.unregister(name="lists")
    for name, plugin in real.items():
        plugins.register(plugin, name)


def test_machines_with_other_lists_do_not_take_turns(ledger: Ledger, drains: Drains) -> None:
    assert drains(genai="0.3", litellm="1.106") == ["genai-prices 0.3", "litellm 1.106"]
    for _ in range(2):
        assert drains(genai="0.4") == ["genai-prices 0.4", "litellm 1.106"]
        assert drains(genai="0.3", litellm="1.106") == ["genai-prices 0.4", "litellm 1.106"]
    assert drains() == ["genai-prices 0.4", "litellm 1.106"]
    assert len(ledger.reading().policies()) == 2


def test_a_list_that_one_machine_brings_later_stands_where_it_always_does(drains: Drains) -> None:
    assert drains(litellm="1.100") == ["litellm 1.100"]
    assert drains(genai="0.3") == ["genai-prices 0.3", "litellm 1.100"]
    assert drains(litellm="1.107", genai="0.2") == ["genai-prices 0.3", "litellm 1.107"]
