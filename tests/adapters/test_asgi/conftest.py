"""Real servers for ASGI applications, and what a request under test must have recorded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from costspan.core.schema import Observation

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no folder there

from asgi_calls import serving

Split = Callable[[list[Observation]], tuple[list[Observation], list[Observation]]]


@pytest.fixture(name="serving")
def _serving() -> Callable[[Any], AbstractContextManager[str]]:
    return serving


@pytest.fixture(name="requests_and_calls")
def _requests_and_calls() -> Split:
    return requests_and_calls


@pytest.fixture(name="check_lineage")
def _check_lineage() -> Callable[[list[Observation], str | None, set[str]], None]:
    return check_lineage


def requests_and_calls(seen: list[Observation]) -> tuple[list[Observation], list[Observation]]:
    requests = [one for one in seen if one.kind == "request"]
    calls = [one for one in seen if one.kind == "model" and one.phase == "end"]
    return requests, calls


def check_lineage(seen: list[Observation], tenant: str | None, names: set[str]) -> None:
    """One recorded request of `tenant`, with exactly these calls under it, all of that tenant."""
    (request,), calls = requests_and_calls(seen)
    assert {one.name for one in calls} == names
    assert (request.tenant, request.layer, request.source) == (tenant, "framework", "asgi")
    assert request.parent is None
    assert request.started_at is not None
    assert request.ended_at is not None
    for one in calls:
        assert one.tenant == tenant
        assert one.parent == one.request_id == request.request_id == request.attempt_id
        assert one.started_at is not None
        assert one.started_at >= request.started_at
