"""Two services, and no proxy between."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tool_service import Service


@pytest.fixture
def service() -> Iterator[Service]:
    served = Service()
    yield served
    served.close()


@pytest.fixture
def elsewhere() -> Iterator[Service]:
    served = Service()
    yield served
    served.close()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
