"""LiteLLM's SDK: `litellm.completion` and its kin, called straight from the application."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from costspan.conformance.drivers.litellm_calls import LiteLLMCalls
from costspan.conformance.provider import LoopbackProvider

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")


class LiteLLMSdk(LiteLLMCalls):
    """`litellm.completion`, `acompletion`, `embedding`, `responses`, `anthropic_messages`."""

    name: ClassVar[str] = "litellm-sdk"
    can: ClassVar[frozenset[str]] = LiteLLMCalls.can | {"sdk_retries", "no_fallbacks"}

    def open(self, provider: LoopbackProvider, scratch: Path) -> None:
        """The provider's address is all that a call needs."""
        super().open(provider, scratch)
        import litellm

        self.target: Any = litellm

    def place(self, model: str) -> dict[str, Any]:
        """Where and what to call."""
        return {
            "model": f"openai/{model}",
            "api_base": self.provider.base_url,
            "api_key": "loopback",
        }


driver = LiteLLMSdk
