"""A prompt's hash goes with the attempt if a key is configured; the prompt itself never does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litellm
import pytest

import costspan
from costspan.adapters.litellm import install
from costspan.core.privacy import prompts
from costspan.core.privacy.hashing import PromptKeys

WORDS = "[[in=10 out=5]] tell me about the merger"


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    install()
    yield
    prompts.use(None)


@pytest.mark.parametrize("is_configured", [False, True])
async def test_the_hash_of_the_messages(
    attempts: Any, said: Any, to_provider: Any, tmp_path: Path, is_configured: bool
) -> None:
    keys = tmp_path / "prompt.keys"
    keys.write_text("k1:" + "a" * 32, "utf-8")
    prompts.use(keys if is_configured else None)
    with costspan.attribute("acme"):
        await litellm.acompletion("openai/gpt-4o", said(WORDS), **to_provider)
    [attempt] = attempts(1)
    expected = PromptKeys.read(keys).hash(said(WORDS), "acme")
    assert attempt.prompt_hash == (expected if is_configured else None)
    assert "merger" not in repr(attempt)
