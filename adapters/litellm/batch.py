"""A batch is one operation, named by its id: every poll of it repeats the same news.

LiteLLM reports each poll of a finished batch as a success with the whole usage again. So a batch
mints no attempt: its creation says whose it is, a finished poll says what it used, and any number
of them are one event.
"""

from __future__ import annotations

from typing import Any

from costspan.adapter import Context, context_fields, evidence
from costspan.adapters.litellm import reply
from costspan.adapters.litellm.request import model_name
from costspan.adapters.litellm.tracking import Details, call_name

_RESULTS = {"completed": "ok", "failed": "failed", "expired": "unknown", "cancelled": "unknown"}
_SECOND_NS = 1_000_000_000


def is_batch(call_type: object) -> bool:
    """Whether the call creates or polls a batch."""
    return call_name(call_type) in ("create_batch", "retrieve_batch")


def record(details: Details, batch: object, context: Context, facts: dict[str, Any]) -> None:
    """Record what a created or polled batch says; a poll of an unfinished one says nothing.

    Args:
        details: LiteLLM's record of the call.
        batch: LiteLLM's batch object: `id`, `status`, `created_at`, `completed_at`, `usage`.
        context: Whose the call is. A poll does not name an owner: a worker may do it for all.
        facts: Fields of the instrument and of the owner.
    """
    identity = reply.read(batch, "id")
    if not isinstance(identity, str) or not identity:
        return
    said: dict[str, Any] = {
        **facts,
        "operation_ids": (f"batch:{identity}",),
        "kind": "model",
        "cause": "batch",
        "cause_source": "structure",
        "initiator": "user",
        "tier": "batch",
        "provider": details.get("custom_llm_provider"),
        "started_at": _ns(reply.read(batch, "created_at")),
    }
    if call_name(details.get("call_type")) == "create_batch":
        owned = {k: v for k, v in context_fields(context).items() if v is not None}
        evidence(**{**said, **owned, "phase": "start"})
        return
    result = _RESULTS.get(str(reply.read(batch, "status")))
    if result is None:
        return
    said.update(reply.usage_of(details, batch))
    models = _models(batch, identity)
    if len(models) == 1:
        (said["executed_model"],) = models
    elif models:  # one usage of several models has no price: unknown, and said so
        said["flags"] = ("batch_of_several_models",)
    said["provider_result"] = result
    said["ended_at"] = _ns(reply.read(batch, "completed_at"))
    evidence(**said)


def _models(batch: object, identity: str) -> set[str]:
    """The models that ran. LiteLLM takes a batch id given by position for a model: it is none."""
    listed: Any = reply.read(reply.read(batch, "_hidden_params"), "batch_models")
    for named in (listed or (), (reply.read(batch, "model"),)):
        names = {name for model in named if (name := model_name(model)) and name != identity}
        if names:
            return names
    return set()


def _ns(seconds: object) -> int | None:
    return int(seconds * _SECOND_NS) if isinstance(seconds, (int, float)) else None
