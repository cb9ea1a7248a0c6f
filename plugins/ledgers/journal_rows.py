"""An observation as a row of the journal, and back: the number of its row, its bytes, its crc.

A row's number says whose it is and the how-manieth: the writer's number of this epoch, then 32 bits
of the sequence number. The oid is therefore not in the bytes.
"""

from __future__ import annotations

from zlib import crc32

import msgspec

from costspan.core.journal.records import decode_body, encode_body
from costspan.core.schema import Observation, oid_of

EPOCH_BITS = 32
_LOW = (1 << EPOCH_BITS) - 1


def split_oid(oid: str) -> tuple[str, int]:
    """(writer, seq) of an oid; an oid that is not `writer:seq` is its own writer with seq -1."""
    writer, colon, digits = oid.rpartition(":")
    plain = digits.isascii() and digits.isdecimal() and (digits == "0" or digits[0] != "0")
    if colon and writer and plain and len(digits) < 19:
        return writer, int(digits)
    return oid, -1


def join_oid(writer: str, seq: int) -> str:
    """The oid that `split_oid` took apart."""
    return writer if seq < 0 else f"{writer}:{seq}"


def epoch_of(seq: int) -> tuple[int, int]:
    """(epoch, number within it) of a writer's sequence number."""
    return (-1, 0) if seq < 0 else (seq >> EPOCH_BITS, seq & _LOW)


def seq_of(epoch: int, row_id: int) -> int:
    """The sequence number of a journal row of a writer's epoch."""
    return -1 if epoch < 0 else epoch << EPOCH_BITS | row_id & _LOW


def payload_of(seen: Observation) -> bytes:
    """An observation's bytes without its oid, which the row's id says."""
    return encode_body(msgspec.structs.replace(seen, oid=None, writer=None, seq=None))


def journal_row(number: int, seen: Observation) -> tuple[int, bytes, int]:
    """(id, payload, crc) of an observation in its normal form."""
    payload = payload_of(seen)
    return number, payload, crc_of(seen.oid or "", payload)


def crc_of(oid: str, payload: bytes) -> int:
    """The checksum of a journal row: its id says whose it is only as long as the writers do."""
    return crc32(payload, crc32(oid.encode()))


def observation_of(writer: str, seq: int, payload: bytes) -> Observation:
    """The observation of a journal row."""
    seen = decode_body(payload)
    # Nobody else has it yet: setting three fields is cheaper than another copy of seventy.
    msgspec.structs.force_setattr(seen, "oid", join_oid(writer, seq))
    msgspec.structs.force_setattr(seen, "writer", writer)
    msgspec.structs.force_setattr(seen, "seq", max(seq, 0))
    return seen


def normal(seen: Observation) -> Observation:
    """An observation as the journal will give it back."""
    oid, seq = seen.oid, seen.seq
    if oid and seq is not None and 0 <= seq < 10**18 and oid == f"{seen.writer}:{seq}":
        return seen
    writer, seq = split_oid(oid_of(seen))
    return msgspec.structs.replace(seen, oid=join_oid(writer, seq), writer=writer, seq=max(seq, 0))
