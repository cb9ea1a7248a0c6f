"""`install()`: every call of the process, once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langchain_core.tracers import context as hooks
from langchain_openai import ChatOpenAI

import costspan
from costspan.adapters.langchain import CostHandler, install
from costspan.adapters.langchain import handler as module

ModelOf = Callable[..., ChatOpenAI]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> CostHandler:
    """Installed for one test: the process of the other tests is left as it was."""
    monkeypatch.setattr(hooks, "_configure_hooks", list(hooks._configure_hooks))
    monkeypatch.setattr(module, "_is_installed", False)
    return install()


def test_a_call_without_callbacks_is_seen(
    installed: CostHandler, model_of: ModelOf, books: Any
) -> None:
    with costspan.attribute("acme"):
        model_of().invoke("hi")
    assert books.end().tenant == "acme"


def test_twice_is_once(installed: CostHandler, model_of: ModelOf, books: Any) -> None:
    assert install() is installed
    assert costspan.install("langchain") is installed
    model_of().invoke("hi")
    assert books.end().provider_result == "ok"


def test_with_a_handler_of_its_own_one_event(
    installed: CostHandler, model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    model_of().invoke("hi", config=seen)
    assert books.end().provider_result == "ok"


def test_two_handlers_one_event(
    model_of: ModelOf, books: Any, counted: Callable[[str], int]
) -> None:
    """Where a model has a handler of its own and the call another, both hear of every run."""
    model = model_of(callbacks=[CostHandler()])
    model.invoke("hi", config={"callbacks": [CostHandler(), CostHandler()]})
    assert books.end().provider_result == "ok"
    assert counted("langchain_end_without_start") == 0
    assert counted("ended_twice") == 0


def test_a_bare_thread_and_a_cut_off_call_are_seen(
    installed: CostHandler, model_of: ModelOf, books: Any
) -> None:
    thread = threading.Thread(target=model_of().invoke, args=("hi",))
    thread.start()
    thread.join()
    model_of().invoke("hi", config={"callbacks": []})
    assert len(books.ends()) == 2


def test_a_call_cut_off_inside_a_tool_still_has_its_parent(
    installed: CostHandler, model_of: ModelOf, books: Any
) -> None:
    @tool
    def research(q: str) -> str:
        """Ask a model without LangChain's config."""
        return str(model_of().invoke("[[in=7 out=1]]", config={"callbacks": []}).content)

    agent = create_agent(model_of(), [research])
    words = """[[tool='research:{"q": "x"}' in=10 out=1]] [[in=20 out=2]]"""
    asked: Any = {"messages": [("user", words)]}  # pairs are not in the types of agents
    agent.invoke(asked)
    inner = next(end for end in books.ends() if end.usage["input"] == 7)
    assert inner.parent == books.end("tool").operation_ids[0]
    assert inner.cause == "subagent"
