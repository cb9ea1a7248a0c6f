"""What the tests of the loopback provider share: calls of it, its one row, a clock."""

from typing import Any

import openai

from costspan.conformance.provider import LoopbackProvider, Row

START = 1_790_000_000 // 86_400 * 86_400
"""Where the clock starts: a midnight, UTC, in Unix seconds."""


class Clock:
    """A clock that the test turns: Unix time in ns."""

    def __init__(self) -> None:
        self.now = START * 10**9

    def __call__(self) -> int:
        return self.now


def ask(client: openai.OpenAI, text: str, **more: Any) -> Any:
    """The reply; with `stream=True` its chunks."""
    said: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
    return client.chat.completions.create(**{**said, **more})


def only(provider: LoopbackProvider) -> Row:
    [row] = provider.truth
    return row
