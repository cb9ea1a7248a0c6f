"""LangChain's `ChatOpenAI`, straight at the provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import SecretStr

from costspan.adapters.langchain import track
from costspan.conformance.drivers.langchain_calls import NOT_CACHED, LangChainCalls
from costspan.conformance.suite.script import Call

KEY = SecretStr("loopback")


class ChatOpenAICalls(LangChainCalls):
    """`ChatOpenAI.invoke`, `ainvoke`, `stream`, `astream`, and `OpenAIEmbeddings`."""

    name: ClassVar[str] = "chat-openai"
    can: ClassVar[frozenset[str]] = LangChainCalls.can | {"sdk_retries"}
    known_failures: ClassVar[Mapping[str, str]] = NOT_CACHED

    def model(self, name: str, call: Call) -> Any:
        """A `ChatOpenAI` whose client tries again only where the scenario says so."""
        options: dict[str, Any] = {"timeout": call.timeout, "service_tier": call.tier}
        if call.n > 1:
            options["n"] = call.n
        return ChatOpenAI(
            model=name,
            base_url=self.provider.base_url,
            api_key=KEY,
            http_async_client=self.http,
            max_retries=call.retries if call.retried_by == "sdk" else 0,
            stream_usage=call.stream and call.asks_usage,
            **options,
        )

    def embeddings(self, name: str) -> Any:
        """`OpenAIEmbeddings`, wrapped: LangChain has no callbacks for embeddings."""
        return track(
            OpenAIEmbeddings(
                model=name,
                base_url=self.provider.base_url,
                api_key=KEY,
                http_async_client=self.http,
                max_retries=0,
                check_embedding_ctx_length=False,  # texts go out as they are, not as token numbers
            )
        )


driver = ChatOpenAICalls
