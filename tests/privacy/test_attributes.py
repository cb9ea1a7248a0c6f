"""Attributes that are not on the allow list are counted and never stored."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from costspan.core import attributes, clean, counters
from costspan.core.bounded import MAP_CHARS_MAX
from costspan.core.schema import Observation


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    attributes.allow(())


def dropped() -> int:
    return counters.snapshot().get("attributes_dropped", 0)


def test_only_what_our_own_adapters_write_is_kept_unless_it_is_said() -> None:
    before = dropped()
    seen = clean.observation({"attributes": {"base_url": "http://x", "prompt": "secret", "a": 1}})
    assert seen.attributes == {"base_url": "http://x"}
    assert seen.flags == ("attributes_dropped",)
    assert dropped() - before == 2
    attributes.allow(["a"])
    seen = clean.observation({"attributes": {"base_url": "http://x", "a": 1}})
    assert seen.attributes == {"base_url": "http://x", "a": 1}
    assert seen.flags == ()


def test_nothing_of_a_dropped_attribute_is_left() -> None:
    seen = clean.observation({"attributes": {"prompt": "secret"}})
    assert seen.attributes is None
    assert "secret" not in repr(seen)
    assert "prompt" not in repr(seen.flags)


def test_what_is_no_mapping_is_named() -> None:
    assert clean.observation({"attributes": 7}).flags == ("invalid:attributes",)


def test_what_is_allowed_is_bounded_all_the_same() -> None:
    attributes.allow(["long"])
    seen = clean.observation({"attributes": {"long": ["y" * 1000] * MAP_CHARS_MAX}})
    assert seen.flags == ("truncated",)


def test_an_observation_that_went_around_the_cleaning_is_filtered_too() -> None:
    seen = attributes.allowed_only(Observation(attributes={"base_url": "u", "x": "secret"}))
    assert seen.attributes == {"base_url": "u"}
    assert seen.flags == ("attributes_dropped",)
    plain = Observation(attributes={"base_url": "u"})
    assert attributes.allowed_only(plain) is plain
