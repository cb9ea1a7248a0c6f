"""Merkle trees over sealed postings, hashed as RFC 6962 does (section 2.1).

No leaf passes for a node, and any one line can be proved without the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import msgspec

from costspan.core.settle.entries import Entry, Posting

_encode = msgspec.json.Encoder().encode


def canonical_posting(number: int, posting: Posting) -> bytes:
    """The bytes of an entry that are sealed: a JSON array of the fields of `Entry`, in order.

    Texts and integers only; amounts in pico of the currency.
    """
    return _encode(msgspec.structs.astuple(Entry.of(number, posting)))


class Tree:
    """A tree that grows leaf by leaf, and remembers one hash a level."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[tuple[int, bytes]] = []

    def add(self, leaf: bytes) -> None:
        """Add a leaf at the end."""
        node, height = sha256(b"\0" + leaf).digest(), 0
        while self._peaks and self._peaks[-1][0] == height:
            _, left = self._peaks.pop()
            node, height = sha256(b"\1" + left + node).digest(), height + 1
        self._peaks.append((height, node))
        self.size += 1

    def root(self) -> str:
        """The root of what was added so far, in hex; that of no leaf is the hash of nothing."""
        if not self._peaks:
            return sha256().hexdigest()
        _, node = self._peaks[-1]
        for _, left in reversed(self._peaks[:-1]):
            node = sha256(b"\1" + left + node).digest()
        return node.hex()


def root_of(sealed: Iterable[tuple[int, Posting]]) -> tuple[str, int]:
    """(root, number of postings) of numbered postings in their order."""
    tree = Tree()
    for number, posting in sealed:
        tree.add(canonical_posting(number, posting))
    return tree.root(), tree.size
