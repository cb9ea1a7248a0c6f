"""Frames: length, crc32, payload. A reader stops at the first frame that is not whole.

A file begins with `MAGIC`, whose last byte is the format's version. Lengths are bytes, little
endian.
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

MAGIC = b"costspan\x01"
_HEAD = struct.Struct("<II")
PAYLOAD_BYTES_MAX = 4 * 1024 * 1024


def frame(payload: bytes) -> bytes:
    """One frame around `payload`."""
    return _HEAD.pack(len(payload), crc32(payload)) + payload


class Frames(NamedTuple):
    """What a file held: the whole payloads in order, and the offset where they end."""

    payloads: list[bytes]
    good_until: int
    torn: bool


def read_frames(data: bytes) -> Frames:
    """Every whole frame of `data`. `torn` says that bytes follow which are no frame."""
    if not data.startswith(MAGIC):
        return Frames([], 0, bool(data))
    payloads: list[bytes] = []
    at = len(MAGIC)
    while at + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        if length > PAYLOAD_BYTES_MAX or end > len(data):
            break
        payload = data[at + _HEAD.size : end]
        if crc32(payload) != checksum:
            break
        payloads.append(payload)
        at = end
    return Frames(payloads, at, at != len(data))
