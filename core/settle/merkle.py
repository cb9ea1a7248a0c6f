"""Merkle trees over sealed postings, hashed as RFC 6962 does (section 2.1).

No leaf passes for a node, and any one line can be proved without the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

import msgspec

from costspan.core.settle.entries import Entry, Posting

_encode = msgspec.json.Encoder().encode


def canonical_posting(number: int, posting: Posting) -> bytes:
    """The bytes of an entry that are sealed: a JSON array of the fields of `Entry`, in order.

    Texts and integers only; amounts in pico of the currency.
    """
    return _encode(msgspec.structs.astuple(Entry.of(number, posting)))


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


class Tree:
    """A tree that grows leaf by leaf, and remembers one hash a level.

    Args:
        proved: The place of a leaf (from 0) to collect the audit path of.
    """

    def __init__(self, proved: int | None = None) -> None:
        self.size = 0
        self._peaks: list[tuple[int, bytes]] = []
        self._proved = proved
        self._path: list[bytes] = []
        self._at: int | None = None
        """Which of the peaks has the proved leaf below it."""

    def add(self, leaf: bytes) -> None:
        """Add a leaf at the end."""
        node, height = sha256(b"\0" + leaf).digest(), 0
        has_proved = self.size == self._proved
        while self._peaks and self._peaks[-1][0] == height:
            _, left = self._peaks.pop()
            if has_proved:
                self._path.append(left)
            elif self._at == len(self._peaks):
                self._path.append(node)
                has_proved = True
            node, height = _node(left, node), height + 1
        if has_proved:
            self._at = len(self._peaks)
        self._peaks.append((height, node))
        self.size += 1

    def root(self) -> str:
        """The root of what was added so far, in hex; that of no leaf is the hash of nothing."""
        if not self._peaks:
            return sha256().hexdigest()
        _, node = self._peaks[-1]
        for _, left in reversed(self._peaks[:-1]):
            node = _node(left, node)
        return node.hex()

    def path(self) -> list[str]:
        """The audit path of the proved leaf in what was added so far (RFC 6962, 2.1.1), in hex.

        Raises:
            ValueError: if there is no such leaf.
        """
        if self._at is None:
            raise ValueError(f"no leaf {self._proved} among {self.size}")
        path = list(self._path)
        if right := self._peaks[self._at + 1 :]:
            _, node = right[-1]
            for _, left in reversed(right[:-1]):
                node = _node(left, node)
            path.append(node)
        path += [left for _, left in reversed(self._peaks[: self._at])]
        return [node.hex() for node in path]


def is_included(leaf: bytes, index: int, size: int, path: Sequence[str], root: str) -> bool:
    """Whether this leaf is at this place of the tree of this size and root.

    Args:
        leaf: The bytes of the leaf.
        index: Its place, from 0.
        size: How many leaves the tree has.
        path: The audit path, in hex, as `Tree.path` gives it.
        root: The root, in hex.
    """
    if not 0 <= index < size:
        return False
    node, at, last = sha256(b"\0" + leaf).digest(), index, size - 1
    for text in path:
        try:
            other = bytes.fromhex(text)
        except ValueError:
            return False
        if last == 0 or len(other) != len(node):
            return False
        if at & 1 or at == last:
            node = _node(other, node)
            while at and not at & 1:  # a last node without a partner has moved up by itself
                at, last = at >> 1, last >> 1
        else:
            node = _node(node, other)
        at, last = at >> 1, last >> 1
    return last == 0 and node.hex() == root


def root_of(sealed: Iterable[tuple[int, Posting]]) -> tuple[str, int]:
    """(root, number of postings) of numbered postings in their order."""
    tree = Tree()
    for number, posting in sealed:
        tree.add(canonical_posting(number, posting))
    return tree.root(), tree.size
