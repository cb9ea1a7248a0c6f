"""A prompt's hash goes with the run if a key is configured; the prompt itself never does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI

import costspan
from costspan.core.privacy import prompts
from costspan.core.privacy.hashing import PromptKeys

WORDS = "tell me about the merger"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    prompts.use(None)


@pytest.mark.parametrize("is_configured", [False, True])
def test_the_hash_is_that_of_the_same_messages_on_the_wire(
    model_of: Callable[..., ChatOpenAI],
    seen: RunnableConfig,
    books: Any,
    tmp_path: Path,
    is_configured: bool,
) -> None:
    keys = tmp_path / "prompt.keys"
    keys.write_text("k1:" + "a" * 32, "utf-8")
    prompts.use(keys if is_configured else None)
    with costspan.attribute("acme"):
        model_of().invoke([("system", "be brief"), ("user", WORDS)], config=seen)
    wire = [{"role": "system", "content": "be brief"}, {"role": "user", "content": WORDS}]
    expected = PromptKeys.read(keys).hash(wire, "acme")
    end = books.end()
    assert end.prompt_hash == (expected if is_configured else None)
    assert "merger" not in repr(end)
