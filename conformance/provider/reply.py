"""What the provider says to one request, before any wire shape: tokens, tool calls, the reply."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token counts as OpenAI reports them: totals that include their details.

    ``prompt`` includes ``cached``, ``cache_write`` (for 5 minutes), ``cache_write_1h`` and
    ``audio_in``; ``completion`` includes ``reasoning`` and ``audio_out``. ``web_searches``
    counts requests, not tokens.

    Raises:
        ValueError: A count is negative, or the details exceed their total.
    """

    prompt: int
    completion: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    audio_in: int = 0
    audio_out: int = 0
    cache_write_1h: int = 0
    web_searches: int = 0

    def __post_init__(self) -> None:
        details_in = (self.cached, self.cache_write, self.cache_write_1h, self.audio_in)
        details_out = (self.reasoning, self.audio_out)
        totals = (self.prompt, self.completion, self.web_searches)
        if min(*totals, *details_in, *details_out) < 0:
            raise ValueError("token counts are never negative")
        if sum(details_in) > self.prompt:
            raise ValueError("cached + cache_write + cache_write_1h + audio_in exceed in")
        if sum(details_out) > self.completion:
            raise ValueError("reasoning + audio_out exceed out")

    @property
    def uncached(self) -> int:
        """The prompt without what the cache gave or took: Anthropic's ``input_tokens``."""
        return self.prompt - self.cached - self.cache_write - self.cache_write_1h

    def components(self) -> dict[str, int]:
        """The same tokens as disjoint priced components, zeros left out.

        Reasoning stays inside ``output``: it is billed at that rate.
        """
        parts = {
            "input": self.uncached - self.audio_in,
            "cache_read": self.cached,
            "cache_write_5m": self.cache_write,
            "cache_write_1h": self.cache_write_1h,
            "audio_input": self.audio_in,
            "output": self.completion - self.audio_out,
            "audio_output": self.audio_out,
            "web_searches": self.web_searches,
        }
        return {name: count for name, count in parts.items() if count}

    def after(self, sent: int, total: int) -> "Tokens":
        """What is billed when only ``sent`` of ``total`` content chunks went out.

        The whole prompt, and the completion pro rata, rounded down; its details never exceed it.
        """
        if sent >= total:
            return self
        completion = self.completion * sent // total
        reasoning = min(self.reasoning, completion)
        return replace(
            self,
            completion=completion,
            reasoning=reasoning,
            audio_out=min(self.audio_out, completion - reasoning),
        )


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call of the reply; ``arguments`` is JSON text."""

    name: str
    arguments: str = "{}"

    def input(self) -> dict[str, Any]:
        """The arguments as the object that Anthropic's wire carries.

        Raises:
            ValueError: They are no JSON object.
        """
        try:
            value = json.loads(self.arguments)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the arguments of tool {self.name!r} are not JSON") from error
        if not isinstance(value, dict):
            raise ValueError(f"the arguments of tool {self.name!r} are not a JSON object")
        return cast(dict[str, Any], value)


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful reply, independent of the endpoint's wire shape.

    ``tokens`` is what the client is told: None when the reply carries no usage block.
    ``created`` is in Unix seconds. ``request`` is the client's own body, for what a reply echoes.
    """

    id: str
    created: int
    model: str
    tier: str
    text: str
    tools: tuple[ToolCall, ...]
    finish: str
    n: int
    tokens: Tokens | None
    request: Mapping[str, object]

    def tool_call_id(self, index: int, choice: int = 0) -> str:
        """The id of the ``index``-th tool call: unique across replies, stable within one."""
        return f"call_{self.id[-20:]}_{choice}_{index}"

    def pieces(self) -> list[str]:
        """The text in stream-sized pieces (words), which joined give the text."""
        words = self.text.split(" ")
        return [word if index == 0 else f" {word}" for index, word in enumerate(words)]
