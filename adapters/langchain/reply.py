"""What a model run says when it ends: usage, executed model, response id, cache hit, step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.globals import get_llm_cache
from langchain_core.outputs import LLMResult

from costspan.adapter import usage
from costspan.adapters.langchain.runs import Run, operation_id_of

_RUN_ID = "lc_run--"
_UUID_CHARS = 36
_FREE_CHOICES = frozenset({"auto", "none"})
_SOME_TOOL = frozenset({"any", "required"})


def reply_facts(response: LLMResult, run: Run | None) -> dict[str, Any]:
    """The END facts of a reply; `run` is None if its start is not known (any more).

    `n` replies of one request carry the same usage each: it is one usage.
    """
    generations = response.generations[0] if response.generations else []
    message: Any = getattr(generations[0], "message", None) if generations else None
    output: Mapping[str, Any] = response.llm_output or {}
    said: Mapping[str, Any] = getattr(message, "response_metadata", None) or {}
    facts = _step_facts(message, run)
    told = usage.as_mapping(getattr(message, "usage_metadata", None))
    reported = _usage_facts(told, said, output, len(generations))
    hit, filled_by = _cache_hit(told, message, run)
    if hit:
        facts.update(_hit_facts(filled_by))
    elif run is not None and _is_passed_on(reported.get("usage"), run):
        return {**facts, "flat_cost": "0", "flags": ("metered_inside",)}
    else:
        facts.update(reported)
        if run is not None:
            run.usage = reported.get("usage")
    named = named_facts(said, output, run)
    if hit:
        named.pop("response_id", None)  # the fill's
    if message is None:
        named.pop("executed_model", None)  # a completion echoes what was asked for
    facts.update(named)
    return facts


def named_facts(
    said: Mapping[str, Any], output: Mapping[str, Any], run: Run | None
) -> dict[str, Any]:
    """The executed model, tier and response id, where a message or the request's output says so."""
    by_litellm = "litellm" in (said.get("model_provider"), _provider(run))
    named = said.get("model_name") or said.get("model") or output.get("model_name")
    facts: dict[str, Any] = {}
    if named is not None and not by_litellm:  # LiteLLM echoes what was asked for
        facts["executed_model"] = named
    if (tier := said.get("service_tier") or output.get("service_tier")) is not None:
        facts["tier"] = tier
    if (response_id := _response_id(said, output, run)) is not None:
        facts["response_id"] = response_id
    return facts


def _provider(run: Run | None) -> str | None:
    return None if run is None else run.metadata.get("ls_provider")


def _usage_facts(
    told: Mapping[str, Any], said: Mapping[str, Any], output: Mapping[str, Any], n: int
) -> dict[str, Any]:
    """The message's usage, or the request's where there are several messages or it has none.

    Anthropic's own usage, where it is passed on, says more than LangChain's: web searches.
    """
    by_anthropic = said.get("model_provider") == "anthropic"
    if by_anthropic and (counted := usage.from_anthropic(own := said.get("usage"))):
        return {"usage": counted, "raw_usage": usage.as_mapping(own)}
    counted = _of_something(usage.from_langchain(told)) if n <= 1 else None
    if counted is None:
        of_request = usage.as_mapping(output.get("token_usage"))
        counted = _of_something(usage.from_openai(of_request))
        if counted is not None:
            return {"usage": counted, "raw_usage": of_request}
        counted = _of_something(usage.from_langchain(told))
    if counted is None:
        return {}
    facts: dict[str, Any] = {"usage": counted, "raw_usage": told}
    if by_anthropic and counted.get("cache_write_5m"):
        # A stream tells the lifetimes in its first event, which LangChain drops: 5 minutes is
        # Anthropic's default, and only that.
        facts["flags"] = ("cache_lifetime_assumed",)
    return facts


def _of_something(counted: dict[str, int] | None) -> dict[str, int] | None:
    """The usage, unless it counts nothing: that is how a wrapper writes down that it was told none.

    No reply is made of no tokens at all (ChatLiteLLM: zeros where LiteLLM's reply has no usage).
    """
    return counted if counted and any(counted.values()) else None


def _response_id(said: Mapping[str, Any], output: Mapping[str, Any], run: Run | None) -> str | None:
    """Provider, account and id. LangChain's own message ids (`lc_run--…`) name no response."""
    named = said.get("id") or output.get("id")
    if named is None:
        return None
    provider = said.get("model_provider") or _provider(run)
    if not isinstance(named, str) or named.startswith(_RUN_ID) or provider in (None, "litellm"):
        return None
    return f"{provider}//{named}"


def _cache_hit(told: Mapping[str, Any], message: Any, run: Run | None) -> tuple[bool, str | None]:
    """Whether LangChain's own cache answered, and the operation that had filled it.

    A hit repeats the fill's usage and ids; LangChain adds a `total_cost` of 0 to the usage. An id
    of an earlier run says the same; of a later one, that this model called another inside.
    """
    by = str(getattr(message, "id", None) or "")
    filler = by[len(_RUN_ID) :][:_UUID_CHARS] if by.startswith(_RUN_ID) else ""
    own = "" if run is None else run.run_id
    if filler == own and "total_cost" not in told:
        return False, None  # nearly always
    earlier = _is_time_ordered(filler) and _is_time_ordered(own) and filler < own
    if earlier or told.get("total_cost", 1) == 0:
        return True, operation_id_of(filler) if filler and filler != own else None
    return False, None


def _hit_facts(filled_by: str | None) -> dict[str, Any]:
    """A hit costs nothing itself; what a semantic cache spends on its lookup is another event."""
    if "semantic" in type(get_llm_cache()).__name__.lower():
        return {"cache": "semantic", "flat_cost": "0", "fill_event": filled_by}
    return {"cache": "exact", "fill_event": filled_by}


def _is_time_ordered(run_id: str) -> bool:
    """Whether it is a UUID of version 7; an application may give a run an id of its own."""
    return run_id[14:15] == "7"


def _is_passed_on(reported: Mapping[str, int] | None, run: Run) -> bool:
    """Whether the usage is that of model runs inside this one, which are metered themselves."""
    if reported is None or not run.inside:
        return False
    inside = [call.usage for call in run.inside if call.usage is not None]
    if not inside:
        return False
    names = {name for each in inside for name in each}
    total = {name: sum(each.get(name, 0) for each in inside) for name in names}
    return reported == total or reported in inside


def _step_facts(message: Any, run: Run | None) -> dict[str, Any]:
    """A reply of tool calls is a step of an agent, unless the structure already said what it is.

    The adapter API drops it where the application named a cause.
    """
    calls: list[Any] = getattr(message, "tool_calls", None) or []
    if not calls or run is None or "cause" in run.facts or _is_answer(calls, run):
        return {}
    return {"cause": "step", "cause_source": "inferred", "initiator": "agent"}


def _is_answer(calls: list[Any], run: Run) -> bool:
    """Whether the tool call is how structured output is asked for: a function forced by name.

    `create_agent` forces "some tool" and offers the response format last.
    """
    if "ls_structured_output_format" in run.options or (
        "ls_structured_output_format" in run.metadata
    ):
        return True
    choice: Any = run.params.get("tool_choice")
    kind = choice if isinstance(choice, str) else usage.as_mapping(choice).get("type")
    if kind is None or kind in _FREE_CHOICES:
        return False
    if kind not in _SOME_TOOL:
        return True
    offered: list[Any] = run.params.get("tools") or []
    if len(offered) == 1:
        return True
    return _by_create_agent(run) and len(calls) == 1 and calls[0]["name"] == _tool_name(offered)


def _by_create_agent(run: Run) -> bool:
    return any(
        outer.metadata.get("ls_integration") == "langchain_create_agent"
        for outer in run.ancestors()
    )


def _tool_name(offered: list[Any]) -> str | None:
    last = usage.as_mapping(offered[-1] if offered else None)
    return usage.as_mapping(last.get("function")).get("name") or last.get("name")
