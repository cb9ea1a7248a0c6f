"""What a run says when it starts: owner, step, parent, model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from costspan.adapter import Context, enclosing_step
from costspan.adapters.langchain.runs import Run, operation_id_of
from costspan.core.context import with_owner

_PREFIX = "costspan_"
_OWNER_KEYS = frozenset(_PREFIX + name for name in ("tenant", "session", "user", "feature"))
_NAMES_OWNER = _OWNER_KEYS | {"tenant", "thread_id"}
_BASE_URL_KEYS = ("openai_api_base", "base_url", "azure_endpoint", "anthropic_api_url", "api_base")

_BASE_URL_VARIABLES = {"openai": "OPENAI_BASE_URL", "anthropic": "ANTHROPIC_BASE_URL"}
"""Where the vendors' own clients look, of which LangChain knows nothing."""


def owned(run: Run) -> tuple[Context, dict[str, Any]]:
    """The run's context with what its config's metadata adds, and the claims that decide nothing.

    Metadata names an owner where the application's context names none; where both do, and differ,
    the context stays and the other is kept as a claim. `thread_id` is LangGraph's session. What
    else moves money (cause, shared, members, delivery, flat_cost, …) is never taken from metadata.
    """
    metadata, context = run.metadata, run.context
    claims: dict[str, Any] = {}
    for key in metadata:
        if key.startswith(_PREFIX) and key not in _OWNER_KEYS:
            claims[key] = metadata[key]
    if _NAMES_OWNER.isdisjoint(metadata):
        return context, claims
    tenant = metadata.get("costspan_tenant", metadata.get("tenant"))
    held, _ = context.owner()
    if tenant is not None and held is not None and tenant != held:
        claims["tenant"] = tenant
    changes: dict[str, Any] = {}
    for name in ("user", "feature"):
        if getattr(context, name) is None and (said := metadata.get(_PREFIX + name)) is not None:
            changes[name] = said
    session = None
    if context.session is None and (context.holder is None or context.holder.session is None):
        session = metadata.get("costspan_session") or metadata.get("thread_id")
    if tenant is None and session is None and not changes:
        return context, claims
    session = None if session is None else str(session)
    return with_owner(context, tenant, "metadata", session=session, **changes), claims


def place(run: Run) -> dict[str, Any]:
    """Parent, agent, and the cause that the structure of the runs shows.

    The parent is the nearest recorded run around this one, unless the context has set a nearer one
    since that run started (a `costspan.tool` inside a tool's own function).
    """
    parent = run.context.parent
    around = run.recorded_ancestor()
    if around is not None and parent in (None, around.context.parent):
        parent = operation_id_of(around.run_id)
    found: dict[str, Any] = {"agent": run.metadata.get("lc_agent_name")}
    if parent is not None:
        found["parent"], found["parent_origin"] = parent, "ours"
    cause = _model_cause(run) if run.kind == "model" else run.kind
    if cause is not None:
        found["cause"], found["cause_source"] = cause, "structure"
        found["initiator"] = "agent"
    return found


def _model_cause(run: Run) -> str | None:
    if run.metadata.get("lc_source") == "summarization":
        return "summarization"
    around: set[str] = set()
    outer = run.parent
    while outer is not None:
        around.add(outer.kind)
        outer = outer.parent
    if (step := enclosing_step()) is not None:
        around.add("tool" if step.kind == "tool" else "retrieval")
    if "tool" in around or _in_sub_graph(run):
        return "subagent"
    return "retrieval" if "retrieval" in around else None


def _in_sub_graph(run: Run) -> bool:
    task = run.metadata.get("langgraph_checkpoint_ns")
    if task is not None and "|" in str(task):
        return True
    agent = run.metadata.get("lc_agent_name")
    return agent is not None and any(
        outer.metadata.get("lc_agent_name", agent) != agent for outer in run.ancestors()
    )


def model_facts(run: Run, serialized: Mapping[str, Any] | None, name: str | None) -> dict[str, Any]:
    """What a model run asks for."""
    metadata, params = run.metadata, run.params
    provider = metadata.get("ls_provider")
    built_with: Any = (serialized or {}).get("kwargs") or {}
    facts: dict[str, Any] = {
        "requested_model": params.get("model")
        or params.get("model_name")
        or metadata.get("ls_model_name"),
        "provider": None if provider == "litellm" else provider,
        "tier": params.get("service_tier"),
        "attributes": address(built_with, provider),
    }
    if run.context.name is None:
        facts["name"] = metadata.get("langgraph_node") or name
    if built_with.get("max_retries") == 0 and provider != "litellm":
        facts["attempts_hidden"] = 0
    return facts


def address(built_with: Mapping[str, Any], provider: str | None) -> dict[str, str] | None:
    """The base URL a model was built with, or that its client finds in the environment."""
    if built_with:
        for key in _BASE_URL_KEYS:
            if isinstance(url := built_with.get(key), str):
                return {"base_url": _public_part(url)}
    variable = _BASE_URL_VARIABLES.get(provider or "")
    url = None if variable is None else os.environ.get(variable)
    return None if url is None else {"base_url": _public_part(url)}


@lru_cache(maxsize=256)
def _public_part(url: str) -> str:
    """The URL without user, password and query."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=host, query="", fragment="").geturl()
    except ValueError:
        return "invalid"
