"""The fields of a record, cleaned once: what its context and its START said, an END repeats.

Cleaning is most of what a record costs the host. Each field is cleaned on its own, so what was
kept once is kept again as it is, unless more is said of the same field: then all of it is cleaned
anew, from what was given.
"""

from __future__ import annotations

from typing import Any, cast

from costspan.core.clean import wire_fields
from costspan.core.context import Context

Kept = dict[str, Any]
"""Fields as they are recorded: what `wire_fields` made."""

_CAUSE = frozenset({"cause", "cause_source", "initiator"})
_KEPT = "wire_fields"


def context_fields(context: Context) -> dict[str, Any]:
    """The observation fields a context gives: owner, session, step, lineage.

    A cause named by `costspan.work` is explicit; without one an adapter adds what it infers.
    """
    tenant, source = context.owner()
    holder = context.holder
    fields: dict[str, Any] = {
        "tenant": tenant,
        "tenant_source": source,
        "session": context.session,
        "session_origin": context.session_origin,
        "user": context.user,
        "feature": context.feature,
        "labels": context.labels,
        "request_id": context.request_id,
        "client_request_id": context.client_request_id,
        "parent": context.parent,
        "parent_origin": context.parent_origin,
        "name": context.name,
        "flags": context.flags,
    }
    if tenant != context.tenant:
        # A principal was bound since: what came signed for another owner (or none) is not its own.
        for name in ("session", "parent"):
            if fields[f"{name}_origin"] == "signed":
                fields[name] = fields[f"{name}_origin"] = None
    if holder is not None:
        holder.touched = True
        if fields["session"] is None and holder.session is not None:
            fields["session"] = holder.session
            fields["session_origin"] = "ours"
        if context.user is None:
            fields["user"] = holder.user
    if context.cause is not None:
        fields["cause"] = context.cause
        fields["cause_source"] = "explicit"
        fields["initiator"] = context.initiator
    return fields


def bound_owner(context: Context) -> tuple[Any, ...]:
    """The context, and what may change while it is in force: who is bound to its request by now."""
    holder = context.holder
    if holder is None:
        return (context,)
    return (context, *context.owner(), holder.session, holder.user)


def fields_of(context: Context, facts: dict[str, Any]) -> Kept:
    """What is recorded of `facts` about work done in `context`."""
    return laid_over(_kept_of(context), facts) or cleaned(context, facts)


def _kept_of(context: Context) -> Kept:
    if context.holder is not None:
        return wire_fields(context_fields(context))
    remembered: dict[str, Any] = vars(context)  # beside the object's fields: no copy has it
    kept: Kept | None = remembered.get(_KEPT)
    if kept is None:
        kept = remembered[_KEPT] = wire_fields(context_fields(context))
    return kept


def laid_over(kept: Kept, facts: dict[str, Any]) -> Kept | None:
    """`kept` and over it `facts`; None where what is kept may depend on what was given before."""
    if "flags" in kept or "usage_source" in kept:
        return None
    if "cause" in kept and not _CAUSE.isdisjoint(facts):
        return None
    if not kept.keys().isdisjoint(facts):
        repeated = kept.keys() & facts
        if None in [facts[name] for name in repeated]:
            return None
        kept = {name: value for name, value in kept.items() if name not in repeated}
    return wire_fields(facts, kept)


def cleaned(context: Context, facts: dict[str, Any]) -> Kept:
    """As `fields_of`, from what was given. Facts go over the context, but for an inferred cause."""
    fields = context_fields(context)
    if "cause" in fields and facts.get("cause_source") != "explicit":
        facts = {name: fact for name, fact in facts.items() if name not in _CAUSE}
    fields.update((name, fact) for name, fact in facts.items() if fact is not None)
    flags = facts.get("flags")
    if context.flags:
        said = cast("tuple[object, ...]", flags) if isinstance(flags, tuple) else (flags,)
        fields["flags"] = (*context.flags, *(said if flags else ()))
    return wire_fields(fields)
