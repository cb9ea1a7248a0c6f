"""Whose a run is: the context of its start, then LangChain's own config metadata."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_openai import ChatOpenAI

import costspan
from costspan.adapters.langchain import CostHandler
from costspan.core.context import Context, Holder, scope

ModelOf = Callable[..., ChatOpenAI]


def config(handler: CostHandler, **metadata: Any) -> RunnableConfig:
    return {"callbacks": [handler], "metadata": metadata}


def test_the_context_of_the_start_owns_the_run(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    with costspan.attribute("acme", session="s1", user="u1", feature="f1", labels={"a": "b"}):
        stream = model_of().stream("hi", config=seen)
        next(stream)
    with costspan.attribute("globex"):
        for _ in stream:
            pass
    end = books.end()
    assert (end.tenant, end.tenant_source) == ("acme", "context")
    assert (end.session, end.session_origin, end.user, end.feature) == ("s1", "ours", "u1", "f1")
    assert end.labels == {"a": "b"}


@pytest.mark.parametrize("key", ["costspan_tenant", "tenant"])
def test_metadata_names_the_owner_where_the_context_does_not(
    key: str, model_of: ModelOf, handler: CostHandler, books: Any
) -> None:
    said = {key: "acme", "costspan_user": "u1", "costspan_feature": "f1", "thread_id": "t1"}
    model_of().invoke("hi", config=config(handler, **said))
    end = books.end()
    assert (end.tenant, end.tenant_source) == ("acme", "metadata")
    assert (end.user, end.feature, end.session, end.session_origin) == ("u1", "f1", "t1", "ours")
    assert end.client_claims is None


def test_the_context_wins_and_the_other_is_a_claim(
    model_of: ModelOf, handler: CostHandler, books: Any, counted: Callable[[str], int]
) -> None:
    said = {"tenant": "globex", "costspan_user": "u2", "costspan_session": "s2"}
    with costspan.attribute("acme", session="s1", user="u1"):
        model_of().invoke("hi", config=config(handler, **said))
    end = books.end()
    assert (end.tenant, end.tenant_source) == ("acme", "context")
    assert (end.session, end.user) == ("s1", "u1")
    assert end.client_claims == {"tenant": "globex"}
    assert counted("tenant_disagreement") == 1


def test_metadata_moves_no_money(model_of: ModelOf, handler: CostHandler, books: Any) -> None:
    claims = {
        "costspan_cause": "safety",
        "costspan_shared": True,
        "costspan_flat_cost": "0",
        "costspan_members": {"globex": 1},
        "costspan_delivery": "blocked",
    }
    model_of().invoke("hi", config=config(handler, tenant="acme", **claims))
    end = books.end()
    assert (end.cause, end.shared, end.flat_cost, end.members, end.delivery) == (None,) * 5
    assert end.client_claims == claims


def test_an_impossible_tenant_leaves_no_owner(
    model_of: ModelOf, handler: CostHandler, books: Any
) -> None:
    model_of().invoke("hi", config=config(handler, tenant="@platform"))
    assert books.end().tenant is None
    assert "tenant_invalid" in books.end().flags


def test_the_principal_of_the_request_outranks_metadata(
    model_of: ModelOf, handler: CostHandler, books: Any
) -> None:
    with scope(Context(holder=Holder(), parent="request-1", request_id="r1")):
        costspan.bind(tenant="acme", session="s1")
        model_of().invoke("hi", config=config(handler, tenant="globex", thread_id="t1"))
    end = books.end()
    assert (end.tenant, end.tenant_source, end.session) == ("acme", "principal", "s1")
    assert (end.parent, end.parent_origin, end.request_id) == ("request-1", "ours", "r1")
    assert end.client_claims == {"tenant": "globex"}


async def test_two_tenants_interleaved_in_tasks(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    async def ask(tenant: str, tokens: int) -> None:
        with costspan.attribute(tenant):
            await model_of().ainvoke(f"[[in={tokens} out=1 delay=0.01]]", config=seen)

    await asyncio.gather(*(ask(("acme", "globex")[n % 2], 10 + n) for n in range(12)))
    owners = {end.usage["input"]: end.tenant for end in books.ends()}
    assert owners == {10 + n: ("acme", "globex")[n % 2] for n in range(12)}


def test_two_tenants_interleaved_in_threads(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    model = model_of(stream_usage=True)

    def ask(tenant: str, tokens: int) -> None:
        with costspan.attribute(tenant):
            for _ in model.stream(f"[[in={tokens} out=1]]", config=seen):
                pass
            model.batch([f"[[in={tokens + 100} out=1]]"] * 2, config=seen)

    threads = [
        threading.Thread(target=ask, args=(("acme", "globex")[n % 2], 10 + n)) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(books.ends()) == 18
    for end in books.ends():
        assert end.tenant == ("acme", "globex")[end.usage["input"] % 2]


def test_a_thread_that_lost_the_context_has_the_tree(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    def in_a_bare_thread(_: str, config: Any) -> None:
        thread = threading.Thread(target=model_of().invoke, args=("hi", config))
        thread.start()
        thread.join()

    with costspan.attribute("acme", session="s1"):
        RunnableLambda(in_a_bare_thread).invoke("x", config=seen)
    assert (books.end().tenant, books.end().session) == ("acme", "s1")


def test_named_work_is_explicit(model_of: ModelOf, seen: RunnableConfig, books: Any) -> None:
    with costspan.work("safety", name="guard"):
        model_of().invoke("[[tool=look]]", config=seen)
    end = books.end()
    assert (end.cause, end.cause_source, end.initiator) == ("safety", "explicit", "platform")
    assert end.name == "guard"
