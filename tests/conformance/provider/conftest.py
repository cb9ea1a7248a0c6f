"""A running loopback provider, the real OpenAI client on it, and a clock that tests turn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from costspan.conformance.provider import LoopbackProvider

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no folder there

from provider_calls import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    with LoopbackProvider() as running:
        yield running
        assert running.wait_idle()
        assert running.bugs == ()


@pytest.fixture
def client(provider: LoopbackProvider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0) as made:
        yield made
