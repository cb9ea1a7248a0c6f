"""The checksum of a row: crc32 over its values.

It finds a byte that a disk or a hand flipped, not a forger: that is what sealed roots are for.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

import msgspec

_encode = msgspec.msgpack.Encoder().encode


def checksum(*values: Any) -> int:
    """The crc32 of values as ledgers keep them (None, integers, texts, blobs), in order."""
    return crc32(_encode(values))
