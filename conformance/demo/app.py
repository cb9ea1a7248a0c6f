"""The host application of the demo: what a team has that adopts costspan.

A Starlette app with a LangGraph agent, a LiteLLM Router behind it, a safety check, a streamed
endpoint, a cached FAQ and a background thread pool. costspan is the lines marked `# costspan`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import litellm
from langchain.agents import create_agent  # pyright: ignore[reportUnknownVariableType]  # bare BaseCheckpointSaver
from langchain_core.tools import tool
from langchain_litellm import ChatLiteLLMRouter
from litellm.caching.caching import Cache, CacheMode
from litellm.router import Router
from litellm.types.caching import LiteLLMCacheType  # pyright: ignore[reportMissingTypeStubs]  # has none
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Scope

import costspan
from costspan.adapters.asgi import AttributionMiddleware

API_KEYS = {"key-acme": "acme", "key-globex": "globex", "key-initech": "initech"}
"""What authentication knows: which tenant a key belongs to."""

INDEX = "[[purpose=shared-index in=40000]] the handbook, for everybody's retrieval"
ORPHAN = "[[purpose=nightly-report in=900 out=150]] a job that nobody gave an owner"


def tenant_of(scope: Scope) -> str | None:
    """The authenticated tenant of a request, or None."""
    headers = dict(scope["headers"])
    return API_KEYS.get(headers.get(b"authorization", b"").decode().removeprefix("Bearer "))


@tool
def search(query: str) -> str:
    """Search the handbook."""
    return f"three pages about {query}"


class Application:
    """The app and what it works with, made for one provider."""

    def __init__(self, provider_url: str) -> None:
        costspan.install("litellm")  # costspan
        costspan.install("langchain")  # costspan
        self.router: Any = _router(provider_url)
        litellm.cache = Cache(type=LiteLLMCacheType.LOCAL, mode=CacheMode.default_off)
        model = ChatLiteLLMRouter(router=self.router, model="gpt-4o")
        self.agent: Any = create_agent(model, tools=[search], name="assistant")
        # Warm before any request: a pool like this is where thread-local tags lose the tenant.
        pool = ThreadPoolExecutor(2)
        list(pool.map(str, range(2)))
        self.pool = costspan.ContextExecutor(pool)
        self.jobs: list[Any] = []
        routes = [
            Route("/chat", self.chat, methods=["POST"]),
            Route("/stream", self.stream, methods=["POST"]),
            Route("/faq", self.faq, methods=["POST"]),
        ]
        self.asgi = Starlette(routes=routes, lifespan=self.lifespan)
        self.asgi.add_middleware(AttributionMiddleware, resolve=tenant_of)  # costspan

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        """Build the shared index at start, and run the job that belongs to nobody."""
        with costspan.work("index"):
            await self.router.aembedding(model="text-embedding-3-small", input=[INDEX])
        await self._ask("gpt-4o-mini", ORPHAN)
        yield

    async def chat(self, request: Request) -> Response:
        """A safety check, then the agent, then a summary in the background."""
        body = await request.json()
        with costspan.work("safety"):
            await self._ask("gpt-4o-mini", body["safety"])
        asked = {"messages": [{"role": "user", "content": body["question"]}]}
        answer = await self.agent.ainvoke(
            asked, config={"configurable": {"thread_id": body["session"]}}
        )
        if "summary" in body:
            self.jobs.append(self.pool.submit(self._summarise, body["summary"]))
        return JSONResponse({"answer": str(answer["messages"][-1].content)})

    def _summarise(self, text: str) -> None:
        with costspan.work("background"):
            self.router.completion(
                model="gpt-4o-mini", messages=[{"role": "user", "content": text}]
            )

    async def stream(self, request: Request) -> Response:
        """An answer streamed straight from the Router."""
        body = await request.json()
        chunks: Any = await self.router.acompletion(
            model="gpt-4o",
            messages=[{"role": "user", "content": body["question"]}],
            stream=True,
            stream_options={"include_usage": True},
        )

        async def lines() -> AsyncIterator[str]:
            async for chunk in chunks:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield json.dumps(chunk.choices[0].delta.content) + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def faq(self, request: Request) -> Response:
        """A question that many ask: the second answer comes from the cache."""
        body = await request.json()
        await self._ask("gpt-4o-mini", body["question"], caching=True, cache={"use-cache": True})
        return JSONResponse({"ok": True})

    async def _ask(self, model: str, text: str, **options: Any) -> None:
        messages: Any = [{"role": "user", "content": text}]
        await self.router.acompletion(model=model, messages=messages, **options)


def _router(provider_url: str) -> Router:
    models = ["gpt-4o", "gpt-4o-mini", "text-embedding-3-small"]
    deployments: Any = [
        {
            "model_name": model,
            "litellm_params": {
                "model": f"openai/{model}",
                "api_base": provider_url,
                "api_key": "demo",
            },
        }
        for model in models
    ]
    return Router(
        model_list=deployments,
        num_retries=1,
        retry_after=0,
        disable_cooldowns=True,
        fallbacks=[{"gpt-4o": ["gpt-4o-mini"]}],
    )
