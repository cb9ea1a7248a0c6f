"""How records become rows and back: oids, payloads, and selects over many keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from costspan.core.journal.records import decode_body, encode_body
from costspan.core.schema import Observation, oid_of
from costspan.core.settle.ledger import Settled

KEYS_PER_SELECT = 500

_encode = msgspec.msgpack.Encoder().encode
_decode_settled = msgspec.msgpack.Decoder(Settled).decode


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


def payload_of(seen: Observation) -> bytes:
    """An observation's bytes without its oid, which the row's key says."""
    return encode_body(msgspec.structs.replace(seen, oid=None, writer=None, seq=None))


def observation_of(writer: str, seq: int, payload: bytes) -> Observation:
    """The observation of a journal row."""
    seen = decode_body(payload)
    oid = join_oid(writer, seq)
    return msgspec.structs.replace(seen, oid=oid, writer=writer, seq=max(seq, 0))


def normal(seen: Observation) -> Observation:
    """An observation as the journal will give it back."""
    writer, seq = split_oid(oid_of(seen))
    return msgspec.structs.replace(seen, oid=join_oid(writer, seq), writer=writer, seq=max(seq, 0))


def pack(settled: Settled) -> bytes:
    """The bytes of an event as it stands."""
    return _encode(settled)


def unpack(content: bytes) -> Settled:
    """The event that `pack` wrote."""
    return _decode_settled(content)


def select_in(
    connection: sqlite3.Connection, sql: str, keys: Collection[Any]
) -> Iterator[tuple[Any, ...]]:
    """The rows of `sql`, whose `{keys}` stands for bound placeholders, over all keys.

    Only placeholders are put into the text; every value is bound.
    """
    ordered = list(keys)
    for at in range(0, len(ordered), KEYS_PER_SELECT):
        some = ordered[at : at + KEYS_PER_SELECT]
        yield from connection.execute(sql.replace("{keys}", ",".join("?" * len(some))), some)
