"""LangChain over LiteLLM's proxy, both metered: two processes see every call, one event is made.

The client's costspan knows the proxy as a gateway, so what LangChain's handler sees there is
evidence on the gateway's event. The tenant is whoever the proxy authenticated.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import httpx
import msgspec
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import SecretStr

from costspan.adapters.httpx import async_call_signer, call_signer
from costspan.adapters.langchain import track
from costspan.conformance.drivers.langchain_calls import NOT_CACHED, LangChainCalls
from costspan.conformance.drivers.litellm_proxy import NOBODY, of_proxy, policy_of
from costspan.conformance.drivers.proxy_process import (
    AUDIENCE,
    NO_TLS,
    Proxy,
    api_key,
    proxy_keys,
)
from costspan.conformance.provider import LoopbackProvider
from costspan.conformance.suite.driver import Ask, Reply, Who
from costspan.conformance.suite.script import Call

_NEVER_SENT = (
    "a hit in LangChain's own cache starts as a call to the gateway and is never sent: it waits"
    " for the gateway's word for ever, listed as unmatched; the amounts are right"
)


class LangChainProxy(LangChainCalls):
    """`ChatOpenAI` and `OpenAIEmbeddings` pointed at a real proxy process."""

    name: ClassVar[str] = "langchain-proxy"
    can: ClassVar[frozenset[str]] = (
        LangChainCalls.can | {"metered_gateway", "route", "usage_injected"}
    ) - {"cancel", "checked", "unasked_usage"}
    known_failures: ClassVar[Mapping[str, str]] = {
        **NOT_CACHED,
        **dict.fromkeys(("K01", "K02"), _NEVER_SENT),
        **dict.fromkeys(("W05", "W09", "W14"), NOBODY),
    }

    def open(self, provider: LoopbackProvider, scratch: Path) -> None:
        """Start the proxy; half a minute."""
        super().open(provider, scratch)
        self.proxy = Proxy(provider, scratch)
        self._who = Who(None)
        self._told: dict[str, Any] = {}
        self._policy: dict[str, str] = {}

    def close(self) -> None:
        """End the proxy."""
        self.proxy.close()

    def gateways(self, host: tuple[str, ...]) -> tuple[str, ...]:
        """The proxy, whatever the scenario asks: it meters every call."""
        return (self.proxy.url,)

    def begin(self, options: frozenset[str]) -> None:
        """What a play before this one left unread belongs to no other books."""
        self.proxy.rotate()
        super().begin(options)
        keys, gateway = proxy_keys(), (self.proxy.url,)
        self.http.event_hooks = {"request": [async_call_signer(keys, AUDIENCE, gateway)]}
        self.sync_http = httpx.Client(
            event_hooks={"request": [call_signer(keys, AUDIENCE, gateway)]}, verify=NO_TLS
        )

    def end(self) -> None:
        """Nothing is left open."""
        super().end()
        self.sync_http.close()

    def spools(self) -> list[Path]:
        """The proxy's, complete; the client's own is drained by the suite."""
        return [self.proxy.rotate()]

    def ask(self, ask: Ask) -> Reply:
        """Make a call by the asker's own key."""
        return super(LangChainProxy, self._for(ask.who)).ask(ask)

    async def aask(self, ask: Ask) -> Reply:
        """Make a call by the asker's own key, on the event loop."""
        return await super(LangChainProxy, self._for(ask.who)).aask(ask)

    def _for(self, who: Who) -> LangChainProxy:
        mine = copy.copy(self)
        mine._who = who
        return mine

    def model(self, name: str, call: Call) -> Any:
        """A `ChatOpenAI` that tries once: the proxy tries again, and falls back."""
        return ChatOpenAI(
            model=call.route or name,
            max_retries=0,
            service_tier=call.tier,
            n=call.n if call.n > 1 else None,
            stream_usage=call.stream and call.asks_usage,
            extra_body=self._told,
            default_headers=self._policy,
            **self._place(),
        )

    def runnable(self, ask: Ask) -> Runnable[Any, Any]:
        """The model; what tries again and what stands in is the proxy's matter, not LangChain's."""
        mine = copy.copy(self)
        mine._told = of_proxy(msgspec.structs.replace(ask.call, cache=None))
        mine._policy = policy_of(ask.call)
        call = msgspec.structs.replace(ask.call, fallback=None, timeout=None, retries=0)
        return super(LangChainProxy, mine).runnable(replace(ask, call=call))

    def embeddings(self, name: str) -> Any:
        """`OpenAIEmbeddings`, wrapped: LangChain has no callbacks for embeddings."""
        return track(
            OpenAIEmbeddings(
                model=name,
                max_retries=0,
                check_embedding_ctx_length=False,  # texts go out as they are, not as token numbers
                **self._place(),
            )
        )

    def _place(self) -> dict[str, Any]:
        key = SecretStr(api_key(self._who.tenant))
        return {
            "base_url": f"{self.proxy.url}/v1",
            "api_key": key,
            "http_client": self.sync_http,
            "http_async_client": self.http,
        }


driver = LangChainProxy
