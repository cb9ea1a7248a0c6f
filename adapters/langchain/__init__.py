"""LangChain and LangGraph: one callback handler.

    agent.invoke(x, config={"callbacks": [CostHandler()]})   # where you say
    costspan.install("langchain")                            # or every call of the process

A chat or LLM run is one operation `langchain:RUN`, named by LiteLLM's attempts underneath if there
are any, and the event itself if there are none; tool and retriever runs are steps; chains and graph
nodes only tell what runs under what.

What LangChain does not show, this adapter cannot count: embeddings have no callbacks; the OpenAI
client's own retries happen below them (`attempts_hidden` is then unknown, 0 with `max_retries=0`);
a stream through a custom base URL carries usage only with `stream_usage=True`; a thread that was
not given the context runs without its owner.
"""

from costspan.adapters.langchain.handler import CostHandler, install

__all__ = ["CostHandler", "install"]
