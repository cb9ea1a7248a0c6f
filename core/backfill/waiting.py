"""Rows that wait to be compared: in memory while they are few, on disk when they are many."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import msgspec

from costspan.core.backfill.claim import Told

_IN_MEMORY_BYTES_MAX = 16 * 1024 * 1024
_LENGTH_BYTES = 8


class Waiting:
    """Chunks of rows, to be read once in the order in which they came."""

    def __init__(self) -> None:
        # In bytes, whatever they hold: a million rows are about 100 MB.
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES_MAX)  # noqa: SIM115
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, chunk: Sequence[Told]) -> None:
        """Keep a chunk.

        Raises:
            OSError: if there is no room for it.
        """
        packed = msgspec.json.encode(chunk)
        self._file.write(len(packed).to_bytes(_LENGTH_BYTES, "big") + packed)
        self.rows += len(chunk)

    def __iter__(self) -> Iterator[list[Told]]:
        self._file.seek(0)
        while length := self._file.read(_LENGTH_BYTES):
            yield msgspec.json.decode(
                self._file.read(int.from_bytes(length, "big")), type=list[Told]
            )
