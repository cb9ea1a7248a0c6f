"""Attempt ids: unique, in the order of their time, and UUIDs of version 7 to whoever looks."""

from __future__ import annotations

import time
import uuid

from costspan.core.identifiers import new_attempt_id


def test_ids_are_uuids_of_version_7_and_their_chance_is_used_whole() -> None:
    ids = [uuid.UUID(new_attempt_id()) for _ in range(2000)]
    assert {(each.version, each.variant) for each in ids} == {(7, uuid.RFC_4122)}
    free = (1 << 80) - 1 & ~(0xF << 76) & ~(0b11 << 62)
    ones = zeros = 0
    for each in ids:
        ones |= each.int & free
        zeros |= ~each.int & free
    assert ones == zeros == free  # every free bit is seen as 0 and as 1
    assert len(set(ids)) == len(ids)


def test_ids_sort_by_the_time_they_were_minted_at() -> None:
    now = time.time_ns()
    millisecond = 1_000_000
    ids = [new_attempt_id(now + n * millisecond) for n in range(100)]
    assert ids == sorted(ids)
    assert uuid.UUID(ids[0]).int >> 80 == now // millisecond
    before = time.time_ns()
    assert before // millisecond <= uuid.UUID(new_attempt_id()).int >> 80


def test_a_clock_that_is_off_gives_ids_all_the_same() -> None:
    for now in (0, -(10**18), 2**63 - 1, 10**30):
        assert len(new_attempt_id(now)) == 32
