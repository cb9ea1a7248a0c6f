"""However much comes in, what is kept is bounded and flagged, and no id is cut."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from itertools import count as counting
from typing import Any

import pytest
from clean_wire import encoded

from costspan.core import clean, runtime
from costspan.core.bounded import MAP_KEYS_MAX
from costspan.core.names import KNOWN_MAX
from costspan.core.recorder import Ack
from costspan.core.schema import FIELDS, Observation

MAPS = ("raw_usage", "client_claims")
IDS = ("attempt_id", "response_id", "session", "user", "parent", "request_id", "provider_account")
TEXTS = ("name", "feature", "agent", "provider", "requested_model", "error_type")


def test_a_wide_map_of_counts_is_cut_too() -> None:
    observation = clean.observation({"raw_usage": {f"k{i}": i for i in range(500)}})
    assert observation.flags == ("truncated",)
    assert observation.raw_usage is not None
    assert len(observation.raw_usage) == MAP_KEYS_MAX + 1


def test_what_is_known_as_clean_stays_small() -> None:
    tracemalloc.start()
    try:
        for i in range(10 * KNOWN_MAX):
            name = f"{i}-{'y' * 100}"
            kept = clean.observation({"tenant": name, "provider": name, "usage": {name[:60]: i}})
            assert (kept.tenant, kept.provider, kept.usage) == (name, name, {name[:60]: i})
        assert tracemalloc.get_traced_memory()[0] < 1_000_000  # all of them would be 4 MB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("field", IDS)
@pytest.mark.parametrize("tail", ["a", "b", "\n", "\ud800"])
def test_an_id_is_never_cut(field: str, tail: str) -> None:
    ids = [f"{'x' * 300}{tail}", f"{'x' * 300}{tail}c"]
    kept = [getattr(clean.observation({field: name}), field) for name in ids]
    assert kept[0] != kept[1]
    assert all(name.startswith("sha256:") and len(name) == 71 for name in kept)


@pytest.mark.parametrize("field", TEXTS)
def test_a_long_text_is_cut_and_flagged(field: str) -> None:
    observation = clean.observation({field: "é" * 10_000_000})
    assert getattr(observation, field) == "é" * 256
    assert observation.flags == ("truncated",)


@pytest.mark.parametrize("field", MAPS)
def test_ten_megabytes_of_metadata_are_bounded_and_flagged(field: str) -> None:
    wide = {f"key{i}": "v" * 1000 for i in range(10_000)}
    deep = {f"a{i}": {f"b{j}": ["v" * 1000] * 50 for j in range(50)} for i in range(50)}
    for hostile in (wide, deep, {"k": "v" * 10_000_000}, {"k" * 10_000_000: 1}):
        observation = clean.observation({field: hostile, "usage": {"input": 5}})
        assert len(encoded(observation)) < 100_000
        assert observation.usage == {"input": 5}
        cut_key_only = len(hostile) == 1 and 1 in hostile.values()
        assert cut_key_only or "truncated" in observation.flags


@pytest.mark.parametrize("field", MAPS)
def test_cyclic_maps_end(field: str) -> None:
    cycle: dict[str, Any] = {}
    cycle.update({f"again{i}": cycle for i in range(64)})
    ring: list[Any] = []
    ring.extend([ring] * 64)
    cycle["ring"] = ring
    observation = clean.observation({field: cycle})
    assert len(encoded(observation)) < 200_000
    assert "truncated" in observation.flags


def test_a_map_that_fits_is_kept_as_it_is() -> None:
    claims = {"team": "a", "n": 3, "deep": {"b": [1, None, True, "x"]}, "text": "line\nline"}
    observation = clean.observation({"client_claims": claims})
    assert observation.client_claims == claims
    assert observation.flags == ()


def test_what_cannot_be_shown_does_not_spoil_its_neighbours() -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    observation = clean.observation({"client_claims": {"a": 1, "b": Hostile(), "c": 10**5000}})
    kept = {"a": 1, "b": "truncated: a Hostile", "c": "truncated: a int"}
    assert observation.client_claims == kept


def test_labels_are_bounded_and_flagged() -> None:
    observation = clean.observation({"labels": {f"k{i}": "v" * 500 for i in range(500)}})
    assert observation.labels is not None
    assert len(observation.labels) == 64
    assert {len(value) for value in observation.labels.values()} == {256}
    assert observation.flags == ("truncated",)


def test_endless_ids_end() -> None:
    def endless() -> Iterator[str]:
        return (f"op{i}" for i in counting())

    observation = clean.observation({"operation_ids": endless(), "flags": endless()})
    assert len(observation.operation_ids) == 64
    assert "truncated" in observation.flags


def test_members_that_fit_no_frame_do_not_take_the_attempt_with_them() -> None:
    members = {f"{i:0128d}": 1 for i in range(clean.MEMBERS_MAX)}
    observation = clean.observation({"members": members, "usage": {"input": 5}})
    assert observation.members is None
    assert observation.flags == ("invalid:members",)
    assert observation.usage == {"input": 5}


def test_the_worst_of_everything_at_once_is_still_recorded(
    recorded: Callable[[], list[Observation]],
) -> None:
    deep = {f"😀{i}": {f"😀{j}": ["😀" * 1000] * 64 for j in range(64)} for i in range(64)}
    hostile: dict[str, Any] = dict.fromkeys(FIELDS, "😀" * 1_000_000)
    hostile.update(dict.fromkeys(MAPS, deep))
    hostile["labels"] = {f"{'😀' * 60}{i}": "😀" * 5000 for i in range(1000)}
    hostile["operation_ids"] = [f"{'😀' * 250}{i}" for i in range(1000)]
    hostile["usage"] = {"input": 5}
    assert isinstance(runtime.record(hostile), Ack)
    (seen,) = recorded()
    assert seen.usage == {"input": 5}
    assert {"tenant_invalid", "truncated", "invalid:layer"} <= set(seen.flags)
