"""LangChain and LangGraph: one callback handler, and a wrapper for embeddings.

    agent.invoke(x, config={"callbacks": [CostHandler()]})   # where you say
    costspan.install("langchain")                            # or every call of the process
    vectors = track(OpenAIEmbeddings())                      # embeddings have no callbacks
    model = with_usage(ChatOpenAI(base_url=…))               # streams that tell their usage

A chat or LLM run is one operation `langchain:RUN`, named by LiteLLM's attempts underneath if there
are any, and the event itself if there are none; tool and retriever runs are steps; chains and graph
nodes only tell what runs under what.

What LangChain does not show, this adapter cannot count, and says so where it can:

- the OpenAI client's own retries happen below the callbacks: `attempts_hidden` is unknown, and 0
  with `max_retries=0`;
- a stream through a custom base URL carries usage only with `stream_usage=True`, and a handler
  cannot ask for it (it is shown a copy of the request): such an event is unmeasured;
- a stream that is abandoned, cancelled or broken before the provider told the usage is estimated
  from its length (`partial`), and flagged so; cancelled before its first token it is unmeasured;
- a streamed chat completion of OpenAI has no response id (the Responses API's has one), a streamed
  reply of Anthropic no lifetimes of its cache writes (`cache_lifetime_assumed`);
- a semantic cache is told from an exact one only by the name of the global cache's class;
- a thread that was not given the context runs without its owner.
"""

from costspan.adapters.langchain.embeddings import TrackedEmbeddings, track
from costspan.adapters.langchain.handler import CostHandler, install
from costspan.adapters.langchain.streams import with_usage

__all__ = ["CostHandler", "TrackedEmbeddings", "install", "track", "with_usage"]
