"""A ledger for the tests of sinks, and sinks by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from costspan.core import hooks
from costspan.core.config import Config
from costspan.core.sinks import Batch

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no folder there

from sink_kept import Posted


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    return Config(ledger=str(tmp_path / "ledger.db"), spool=tmp_path / "spool")


@pytest.fixture
def plug(settings: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Registers sinks by name; what they and this process did is forgotten afterwards."""
    monkeypatch.setattr(hooks, "problems", [])
    registered: list[str] = []

    def plug(**functions: Posted) -> None:
        for name, function in functions.items():

            @hooks.hookimpl
            def posted(batch: Batch, function: Posted = function) -> Any:
                return function(batch)

            module = ModuleType(name)
            module.posted = posted  # type: ignore[attr-defined]  # a module made by hand
            hooks.plugins().register(module, name)
            registered.append(name)

    yield plug
    for name in registered:
        hooks.plugins().unregister(name=name)
