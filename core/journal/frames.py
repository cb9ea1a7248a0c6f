"""Frames: length, crc32, payload. A reader steps over what is no whole frame, and says where.

A file begins with `MAGIC`, whose last byte is the format's version. Lengths are bytes, little
endian. A file of a newer version is not taken apart: what it means is not known here.
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

NAME = b"costspan"
VERSION = 1
MAGIC = NAME + bytes((VERSION,))
OBSERVATION = 1
"""The first byte of a payload that is an observation; its sequence number follows."""
_HEAD = struct.Struct("<II")
NUMBERED = struct.Struct("<BQ")
PAYLOAD_BYTES_MAX = 4 * 1024 * 1024
_SOUND_BYTES_MIN = 9
_SOUND_BYTES_MAX = 64 * 1024


def frame(payload: bytes) -> bytes:
    """One frame around `payload`."""
    return _HEAD.pack(len(payload), crc32(payload)) + payload


def observation_frame(seq: int, body: bytes) -> bytes:
    """`frame(observation_payload(seq, body))`, with one copy of the body instead of two."""
    number = NUMBERED.pack(OBSERVATION, seq)
    length = NUMBERED.size + len(body)
    return b"%b%b%b" % (_HEAD.pack(length, crc32(body, crc32(number))), number, body)


class Frames(NamedTuple):
    """What a file held: the whole payloads in order, and where bytes are that are no frame."""

    payloads: list[bytes]
    damaged: list[tuple[int, int]]


def read_frames(data: bytes) -> Frames:
    """Every whole frame of `data`. What is torn or damaged hides no frame behind it.

    A file of a newer version is one payload, its first bytes, which are no record: so whoever
    reads it counts something unreadable, and puts nothing of it aside.
    """
    if is_newer(data):
        return Frames([data[: len(MAGIC)]], [])
    if not data.startswith(MAGIC):
        return Frames([], [(0, len(data))] if data else [])
    frames = Frames([], [])
    at = len(MAGIC)
    while at < len(data):
        payload = _frame_at(data, at, PAYLOAD_BYTES_MAX)
        if payload is None:
            sound = _next_frame(data, at + 1)
            frames.damaged.append((at, sound))
            at = sound
        else:
            frames.payloads.append(payload)
            at += _HEAD.size + len(payload)
    return frames


def first_payload(start: bytes) -> bytes | None:
    """The first payload of a file of this version that begins so; None if it is not all there."""
    return _frame_at(start, len(MAGIC), len(start)) if start.startswith(MAGIC) else None


def is_newer(data: bytes) -> bool:
    """Whether these are the first bytes of a file that a newer version wrote."""
    return data.startswith(NAME) and len(data) >= len(MAGIC) and data[len(NAME)] > VERSION


def _frame_at(data: bytes, at: int, bytes_max: int) -> bytes | None:
    if at + _HEAD.size > len(data):
        return None
    length, checksum = _HEAD.unpack_from(data, at)
    end = at + _HEAD.size + length
    if not 1 <= length <= bytes_max or end > len(data):
        return None  # a length of 0 is a stretch of zeros, as a power cut leaves them
    payload = data[at + _HEAD.size : end]
    return payload if crc32(payload) == checksum else None


def _next_frame(data: bytes, start: int) -> int:
    """Where the next frame begins; the end of `data` if none does.

    Only frames of a usual size are looked for: chance makes one of 2**48 places look like one.
    """
    for at in range(start, len(data) - _HEAD.size - _SOUND_BYTES_MIN + 1):
        length = int.from_bytes(data[at : at + 4], "little")
        if _SOUND_BYTES_MIN <= length <= _SOUND_BYTES_MAX:
            payload = _frame_at(data, at, _SOUND_BYTES_MAX)
            if payload is not None:
                return at
    return len(data)
