"""The words of providers' line items and token types, and the components they stand for.

What is not in these tables is kept as it is written, without model and component, and counted.
"""

from __future__ import annotations

from typing import Final, NamedTuple

OPENAI_COMPONENTS: Final = {
    "input": "input",
    "text input": "input",
    "cached input": "cache_read",
    "cached text input": "cache_read",
    "cache write input": "cache_write_5m",
    "cache write 1h input": "cache_write_1h",
    "output": "output",
    "text output": "output",
    "audio input": "audio_input",
    "audio output": "audio_output",
    "image input": "image_input",
    "image output": "image_output",
    "web searches": "web_searches",
}
"""What follows the model in a line item of the costs API: "gpt-4o-2024-08-06, cached input"."""

OPENAI_TIERS: Final = ("batch", "flex", "priority", "scale")
"""The word before it where another tier served: "gpt-4o-2024-08-06, batch cached input"."""

ANTHROPIC_COMPONENTS: Final = {
    "uncached_input_tokens": "input",
    "cache_read_input_tokens": "cache_read",
    "cache_creation.ephemeral_5m_input_tokens": "cache_write_5m",
    "cache_creation.ephemeral_1h_input_tokens": "cache_write_1h",
    "output_tokens": "output",
}
"""Token types of the cost report, which are the fields of the usage report too."""

ANTHROPIC_COST_TYPES: Final = {
    "tokens": "",
    "web_search": "web_searches",
    "code_execution": "",
    "session_usage": "",
}
"""Cost types: their component where the token type does not say it."""


class Item(NamedTuple):
    """A line item taken apart; `is_known` says whether its words are in the table."""

    model: str | None
    component: str
    tier: str | None
    is_known: bool


def openai_item(words: str) -> Item:
    """A line item of OpenAI's costs API."""
    model, comma, rest = words.rpartition(", ")
    tier, _, plain = rest.partition(" ")
    if tier not in OPENAI_TIERS:
        tier, plain = "", rest
    component = OPENAI_COMPONENTS.get(plain.strip().lower())
    if not comma or not model or component is None:
        return Item(None, "", None, False)
    return Item(model, component, tier or None, True)
