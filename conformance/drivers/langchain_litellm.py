"""LangChain over LiteLLM in the same process: two instruments see every call."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import costspan
from costspan.conformance.drivers import litellm_host
from costspan.conformance.drivers.langchain_calls import NOT_CACHED, LangChainCalls
from costspan.conformance.suite.script import Call

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")


class LangChainOverLiteLLM(LangChainCalls):
    """`ChatLiteLLM` and `LiteLLMEmbeddings`; both callbacks are registered."""

    name: ClassVar[str] = "langchain-litellm"
    can: ClassVar[frozenset[str]] = LangChainCalls.can | {"sdk_retries"}
    known_failures: ClassVar[Mapping[str, str]] = NOT_CACHED

    def begin(self, options: frozenset[str]) -> None:
        """Register costspan with both; what is odd is odd in both."""
        import litellm

        super().begin(options)
        self._kept = litellm_host.kept()
        if "failing_callback" in options:
            litellm.callbacks.append(litellm_host.failing_callback())
        costspan.install("litellm")
        if "registered_twice" in options:
            litellm_host.register_again()

    def end(self) -> None:
        """Leave LiteLLM's lists of callbacks as they were found."""
        litellm_host.restore(self._kept)
        super().end()

    def model(self, name: str, call: Call) -> Any:
        """A `ChatLiteLLM`; what tries again below it is the OpenAI client inside LiteLLM."""
        from langchain_litellm import ChatLiteLLM

        retries = call.retries if call.retried_by == "sdk" else 0
        options: dict[str, Any] = {"max_retries": retries}
        if call.tier is not None:
            options["service_tier"] = call.tier
        return ChatLiteLLM(
            **self.place(name),
            max_retries=1,  # LiteLLM's classes mean tries
            request_timeout=call.timeout,
            n=call.n if call.n > 1 else None,
            stream_options={"include_usage": call.asks_usage},
            model_kwargs=options,
        )

    def embeddings(self, name: str) -> Any:
        """LiteLLM's callback meters them: LangChain has none for embeddings."""
        from langchain_litellm import LiteLLMEmbeddings

        return LiteLLMEmbeddings(**self.place(name))

    def place(self, name: str) -> dict[str, Any]:
        """Where and what to call."""
        return {
            "model": f"openai/{name}",
            "api_base": self.provider.base_url,
            "api_key": "loopback",
        }

    def finish(self) -> None:
        """Wait for the pool of threads that LiteLLM calls sync callbacks from."""
        litellm_host.rest()

    async def afinish(self) -> None:
        """Async callbacks wait in a worker of this loop, which `loop_closes` does not give time."""
        if not self.is_closing:
            await litellm_host.arest()
        await super().afinish()


driver = LangChainOverLiteLLM
