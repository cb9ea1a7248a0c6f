"""An application over a metered gateway: `python agent.py GATEWAY` in an environment of its own.

An agent with a tool, a stream, embeddings and a call that is tried twice, for two tenants at once.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import httpx
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

import costspan
from costspan.adapters.httpx import call_signer
from costspan.adapters.langchain import CostHandler, track
from costspan.conformance.drivers.proxy_process import AUDIENCE, NO_TLS, api_key, proxy_keys


@tool
def search(query: str) -> str:
    """Search the handbook."""
    return f"three pages about {query}"


def work(tenant: str, gateway: str) -> None:
    """What one tenant asks for."""
    signer = call_signer(proxy_keys(), AUDIENCE, (gateway,))
    http = httpx.Client(event_hooks={"request": [signer]}, verify=NO_TLS)
    place: dict[str, Any] = {
        "base_url": f"{gateway}/v1", "api_key": api_key(tenant), "http_client": http,
        "max_retries": 0,
    }  # fmt: skip
    model = ChatOpenAI(model="gpt-4o", stream_usage=True, callbacks=[CostHandler()], **place)
    agent = create_agent(model, tools=[search])
    embeddings = track(
        OpenAIEmbeddings(model="text-embedding-3-small", check_embedding_ctx_length=False, **place)
    )
    who = f"tenant={tenant}"
    steps = f"""[[{who} in=100 out=20 tool='search:{{"query": "q"}}']] [[{who} in=150 out=30]] ?"""
    agent.invoke({"messages": [{"role": "user", "content": steps}]})
    list(model.stream(f"[[{who} in=40 out=12]] stream"))
    twice = model.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    twice.invoke(f"[[{who} status=503 times=1 in=70 out=7]] twice")
    embeddings.embed_query(f"[[{who} in=9]] embed")
    http.close()


if __name__ == "__main__":
    threads = [
        threading.Thread(target=costspan.carry(work), args=(tenant, sys.argv[1]))
        for tenant in ("acme", "globex")
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
