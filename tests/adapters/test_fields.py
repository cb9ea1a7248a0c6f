"""What an END repeats of its START is cleaned once, and is as if all of it were cleaned anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import costspan
from costspan.adapter import Attempt, Operation, context_fields
from costspan.core import clean, runtime, schema
from costspan.core.context import NOTHING, Context, Holder, scope
from costspan.core.journal import records, spool
from costspan.core.schema import FIELDS, Observation

OURS = frozenset({"attempt_id", "phase", "recorded_at", "oid", "writer", "seq", "schema_version"})
CAUSE = ("cause", "cause_source", "initiator")

texts = st.sampled_from(
    [
        "acme",
        "globex",
        "gpt-4o",
        "a b",
        " a",
        "",
        "0-0",
        "@platform",
        "é",
        "\ud800",
        "\n",
        "x" * 300,
    ]
)
counts = st.sampled_from([0, 1, 7, 1.0, 1.5, -1, True, 2**70, float("nan"), None])
maps = st.dictionaries(texts, st.one_of(counts, texts), max_size=3)
values = st.one_of(texts, counts, maps, st.lists(texts, max_size=3), st.none())
likely: dict[str, st.SearchStrategy[Any]] = {
    "cause": st.sampled_from(get_args(schema.Cause)),
    "cause_source": st.sampled_from(get_args(schema.CauseSource)),
    "initiator": st.sampled_from(get_args(schema.Initiator)),
    "usage_source": st.sampled_from(get_args(schema.UsageSource)),
    "provider_result": st.sampled_from(get_args(schema.ProviderResult)),
    "usage": st.dictionaries(st.sampled_from(["input", "output"]), counts, max_size=2),
}
_OTHERS = set(FIELDS) - OURS - {"layer", "kind", "flags", "operation_ids", "started_at"}
NAMES = [*sorted(_OTHERS), *CAUSE, "usage", "usage_source", "name", "session", "parent", "labels"]
fact = st.one_of(
    *(
        st.tuples(st.just(n), st.one_of(likely[n], values) if n in likely else values)
        for n in NAMES
    ),
    st.tuples(st.just("flags"), st.lists(texts, max_size=2).map(tuple)),
    st.just(("unheard_of", 1)),
)
facts = st.lists(fact, max_size=8).map(dict[str, Any])
late_facts = st.tuples(
    facts, st.sampled_from([{}, {"operation_ids": ("other",)}, {"started_at": 5}])
).map(lambda two: {**two[0], **two[1]})
contexts = st.builds(
    Context,
    tenant=st.sampled_from([None, "acme"]),
    tenant_source=st.sampled_from([None, "principal", "delegating_principal", "context"]),
    session=texts | st.none(),
    session_origin=st.sampled_from([None, "ours", "signed", "caller"]),
    user=texts | st.none(),
    labels=st.none() | st.dictionaries(texts, texts, max_size=2),
    name=texts | st.none(),
    parent=st.none() | texts,
    parent_origin=st.sampled_from([None, "ours", "signed"]),
    cause=st.sampled_from([None, "safety", "tool"]),
    initiator=st.sampled_from([None, "platform"]),
    flags=st.sampled_from([(), ("tenant_invalid",)]),
)


class Call:
    """One call and what is said of it, also by the way (`added`), and who is bound meanwhile."""

    def __init__(
        self,
        context: Context,
        said: tuple[dict[str, Any], dict[str, Any], dict[str, Any]],
        operation: str | None,
        in_request: bool,
        bound: str | None,
    ) -> None:
        self.context = msgspec.structs.replace(context, holder=Holder()) if in_request else context
        self.start, self.added, self.end = said
        self.operation = operation
        self.bound = bound

    def __repr__(self) -> str:
        return f"<{self.context} {self.start} {self.added} {self.end} {self.bound}>"

    def observations(self, ended_at: int | None) -> tuple[Observation, Observation]:
        """What its START and its END should say, everything cleaned anew."""
        begun = self._whole("start", self.start)
        if self.bound is not None and self.context.holder is not None:
            self.context.holder.fill(self.bound, "bound-session", None)
        end = dict(self.end)
        end.setdefault("provider_result", "ok")
        end.setdefault("ended_at", ended_at)
        if not end.get("usage"):
            end.setdefault("usage_source", "missing")
        return begun, self._whole("end", {**self.start, **self.added, **end})

    def _whole(self, phase: str, said: dict[str, Any]) -> Observation:
        fields = context_fields(self.context)
        if "cause" in fields and said.get("cause_source") != "explicit":
            said = {name: fact for name, fact in said.items() if name not in CAUSE}
        fields.update((name, fact) for name, fact in said.items() if fact is not None)
        fields["flags"] = (*self.context.flags, *said.get("flags", ()))
        fields.update(attempt_id=None, started_at=None, phase=phase, layer="sdk", kind="model")
        fields["operation_ids"] = () if self.operation is None else (self.operation,)
        return clean.observation(fields)

    def make(self) -> None:
        """Record it, as an adapter does."""
        given: dict[str, Any] = dict(layer="sdk", kind="model", context=self.context, **self.start)
        seen: Attempt | Operation
        if self.operation is None:
            seen = Attempt.start(**given)
        else:
            seen = Operation.start(self.operation, **given)
        if self.added:
            seen.add(**self.added)
        if self.bound is not None:
            with scope(self.context):
                costspan.bind(self.bound, session="bound-session")
        seen.end(**self.end)


calls = st.builds(
    Call,
    contexts,
    st.tuples(facts, facts, late_facts),
    st.none() | st.sampled_from(["langchain:r", "", "x" * 300]),
    st.booleans(),
    st.none() | st.just("globex"),
)


def taken() -> Iterator[Observation]:
    """What was recorded since the last time; gone from the spool, and from the one beside it."""
    runtime.recorder().rotate()
    for folder in spool.folders_of(runtime.settings()):
        for path in spool.segments(folder):
            with spool.claim(path) as content:
                assert content is not None
                for payload in content.payloads:
                    if isinstance(record := records.decode(payload, "writer"), Observation):
                        yield record
            path.unlink()


def comparable(seen: Observation) -> Observation:
    """Without what differs by the moment, or names the record. Flags are a set."""
    seen = msgspec.structs.replace(seen, oid=None, writer=None, seq=None)
    return msgspec.structs.replace(
        seen, attempt_id=None, started_at=None, recorded_at=None, flags=tuple(sorted(seen.flags))
    )


@settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(calls, min_size=1, max_size=6))
@example([Call(NOTHING, ({"usage": {}}, {}, {"usage": {"input": 1}}), None, False, None)])
@example([Call(NOTHING, ({"name": "a"}, {}, {"name": None}), None, False, None)])
@example([Call(Context(name="b"), ({"name": "a"}, {}, {"name": None}), None, False, None)])
@example([Call(NOTHING, ({"session": "\n"}, {}, {"session": "s"}), None, False, None)])
@example([Call(Context(cause="tool"), ({}, {}, {"initiator": "user"}), None, False, None)])
@example([Call(NOTHING, ({}, {}, {"attempt_id": "theirs"}), "langchain:r", False, None)])
@example([Call(NOTHING, ({}, {}, {"name": "b"}), None, True, "globex")])
@example([Call(NOTHING, ({"labels": {"a": "b"}}, {}, {"labels": {}}), None, False, None)])
def test_what_is_repeated_is_what_cleaning_it_anew_would_be(
    books_at: Path, made: list[Call]
) -> None:
    for call in made:
        call.make()
    found = list(taken())
    assert len(found) == 2 * len(made)
    for call, start, end in zip(made, found[::2], found[1::2], strict=True):
        if call.context.holder is not None:
            call.context.holder.tenant = call.context.holder.session = None  # as at the START
        assert (start.attempt_id, end.attempt_id).count(None) == 2 * (call.operation is not None)
        begun, ended = call.observations(end.ended_at)
        assert comparable(start) == comparable(begun)
        assert comparable(end) == comparable(ended)


def test_a_context_remembers_what_is_recorded_of_it_and_is_the_same_context() -> None:
    context = Context(tenant="acme", tenant_source="context", labels={"a": "b"})
    with scope(context):
        Attempt.start(requested_model="gpt-4o").end()
    assert context == Context(tenant="acme", tenant_source="context", labels={"a": "b"})
    changed = msgspec.structs.replace(context, tenant="globex")
    assert (changed.tenant, vars(changed)) == ("globex", {})


def test_the_end_says_when_it_was(recorded: Callable[[], list[Observation]]) -> None:
    before = time.time_ns()
    attempt = Attempt.start(requested_model="gpt-4o", started_at=before - 5)
    attempt.end(started_at=7)
    after = time.time_ns()
    start, end = recorded()
    assert start.started_at == end.started_at == before - 5
    assert start.recorded_at is not None
    assert end.recorded_at is not None
    assert end.ended_at is not None
    assert before <= start.recorded_at <= end.recorded_at == end.ended_at <= after
    assert start.attempt_id == end.attempt_id == attempt.attempt_id


@pytest.mark.parametrize("flags", [("mock",), ["mock"], "mock", 5])
def test_flags_of_any_shape_stop_nobody(
    recorded: Callable[[], list[Observation]], flags: object
) -> None:
    with scope(Context(flags=("tenant_invalid",))):
        Attempt.start(flags=flags).end()
    for seen in recorded():
        assert "tenant_invalid" in seen.flags


def test_an_adapter_may_change_its_mind_about_the_context(
    recorded: Callable[[], list[Observation]],
) -> None:
    attempt = Attempt.start(context=Context(tenant="acme", tenant_source="context"))
    attempt.context = Context(tenant="globex", tenant_source="context")
    attempt.end()
    assert [seen.tenant for seen in recorded()] == ["acme", "globex"]
