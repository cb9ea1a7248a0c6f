"""What becomes of observations that arrive, beside those kept already: the same in every ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from costspan.core.schema import Observation, canonical

_DIGEST_BYTES = 16


Numbered = tuple[int, Observation]
"""An observation, and the number of its row."""


class Sorted(msgspec.Struct):
    """A batch, sorted out; observations go by the number of their row."""

    fresh: dict[int, Observation] = msgspec.field(default_factory=dict[int, Observation])
    """To be kept: nothing had their oid, or what had it lost to them."""
    withdrawn: list[Numbered] = msgspec.field(default_factory=list[Numbered])
    """Kept before, and lost to a fresh one."""
    losers: list[Numbered] = msgspec.field(default_factory=list[Numbered])
    duplicates: int = 0
    conflicts: int = 0


def sort_out(
    numbered: Iterable[Numbered],
    stored: Mapping[int, Observation],
    archived: Mapping[int, bytes],
) -> Sorted:
    """Tell what is new from duplicates and from other payloads of an oid that was taken.

    Args:
        numbered: What arrives: its row and itself, in its normal form.
        stored: What the journal has under these rows.
        archived: The digests of what stands in an archive under these rows.
    """
    done = Sorted()
    fresh = done.fresh
    for number, seen in numbered:
        kept = stored.get(number)
        held = fresh.get(number) or kept
        if number in archived:  # what is archived stands, whatever its hash
            if archived[number] == digest_of_payload(seen):
                done.duplicates += 1
            else:
                done.conflicts += 1
                done.losers.append((number, seen))
        elif held is None:
            fresh[number] = seen
        elif held == seen or payload_hash(held) == payload_hash(seen):
            done.duplicates += 1
        else:
            done.conflicts += 1
            winner, loser = sorted((held, seen), key=payload_hash)
            done.losers.append((number, loser))
            if winner is seen:
                fresh[number] = seen
                if held is kept:
                    done.withdrawn.append((number, held))
    return done


def payload_hash(seen: Observation) -> str:
    """What decides between two payloads of one oid: the smaller SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(seen)).hexdigest()


def digest_of_payload(seen: Observation) -> bytes:
    """What tells a duplicate of an archived observation from a conflict with it."""
    return hashlib.sha256(canonical(seen)).digest()[:_DIGEST_BYTES]
