"""The files of one export: each of them once, and their rows one after another.

Files of the same content (two names of one, a copy, one beside its own gzip) are one part of the
export: rows of FOCUS have no id that would tell that they came twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from costspan.plugins.backfill import sources
from costspan.plugins.backfill.placed import Placed

_BYTES_AT_A_TIME = 1024 * 1024


class Parts(NamedTuple):
    """The files of an export.

    Attributes:
        files: each of them once, in the order in which they were named.
        again: what was named too, and is one of them: (its path, the one that is read).
    """

    files: Sequence[Path]
    again: Sequence[tuple[Path, Path]]

    def rows(self) -> Iterator[Placed]:
        """Every row, file by file; where several were named, each place has its file.

        Raises:
            UnreadableSource: if one is no file of rows.
            OSError: if one cannot be read.
        """
        is_one = len(self.files) + len(self.again) == 1
        for path in self.files:
            for placed in sources.read(path):
                yield placed if is_one else placed._replace(where=f"{path}, {placed.where}")


def parts_of(named: Sequence[Path], tell: Callable[[int], None]) -> Parts:
    """These files, each once.

    Args:
        named: Their paths.
        tell: Is told how many of them are looked at.

    Raises:
        UnreadableSource: if one cannot hold rows; nothing was read of it.
        OSError: if one cannot be read.
    """
    known: dict[bytes, Path] = {}
    files: list[Path] = []
    again: list[tuple[Path, Path]] = []
    for number, path in enumerate(named, 1):
        same = known.setdefault(_content(path), path) if len(named) > 1 else path
        if same is path:
            files.append(path)
        else:
            again.append((path, same))
        tell(number)
    return Parts(files, again)


def _content(path: Path) -> bytes:
    """The digest of a file's bytes, out of their gzip; of one that is torn, those before."""
    digest = hashlib.blake2b(digest_size=32)
    with sources.unpacked(path) as raw:
        try:
            while read := raw.read(_BYTES_AT_A_TIME):
                digest.update(read)
        except sources.TORN as error:
            digest.update(repr(error).encode())
    return digest.digest()
