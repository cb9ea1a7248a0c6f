"""Identifiers minted here: time-ordered attempt ids, random writer ids."""

from __future__ import annotations

import os
import random
import time

_random = random.Random(os.urandom(16))
_random_bits = _random.getrandbits

_TIME_BITS = 0xFFFF_FFFF_FFFF
_FREE_BITS = 0x0FFF_3FFF_FFFF_FFFF_FFFF
_VERSION_BITS = 0x7000_8000_0000_0000_0000
"""Of the lower 80 bits of a UUID: version 7, and the variant of RFC 9562."""


def new_attempt_id(now_ns: int | None = None) -> str:
    """A time-ordered id (UUIDv7 layout, 32 hex digits): millisecond clock, then 74 random bits.

    Time order keeps a ledger's index local; it is not a claim about when the call happened.

    Args:
        now_ns: The wall clock (ns UTC), where the caller has just read it.
    """
    milliseconds = (time.time_ns() if now_ns is None else now_ns) // 1_000_000
    chance = _random_bits(80) & _FREE_BITS | _VERSION_BITS
    # Through bytes: a quarter of what formatting the numbers takes.
    return ((milliseconds & _TIME_BITS) << 80 | chance).to_bytes(16, "big").hex()


def new_writer_id() -> str:
    """A random 128-bit id of one process's life: pids and host names repeat, this does not."""
    return os.urandom(16).hex()


def after_fork() -> None:
    """Seed anew: a child that shares the parent's generator would mint the parent's ids."""
    _random.seed(os.urandom(16))
