"""Inclusion proofs: every leaf of every small tree proves, and nothing else does."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costspan.core.settle.merkle import Tree, is_included


def node(leaves: list[bytes]) -> bytes:
    """The definition of RFC 6962, section 2.1, word by word."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\1" + node(leaves[:k]) + node(leaves[k:])).digest()


def path_of(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH(m, D[n]) of section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*path_of(m, leaves[:k]), node(leaves[k:])]
    return [*path_of(m - k, leaves[k:]), node(leaves[:k])]


def tree_of(leaves: list[bytes], proved: int | None = None) -> Tree:
    tree = Tree(proved)
    for leaf in leaves:
        tree.add(leaf)
    return tree


@pytest.mark.parametrize("size", range(71))
def test_every_leaf_proves(size: int) -> None:
    leaves = [b"leaf %d" % number for number in range(size)]
    root = tree_of(leaves).root()
    assert root == node(leaves).hex()
    for index, leaf in enumerate(leaves):
        path = tree_of(leaves, index).path()
        assert path == [each.hex() for each in path_of(index, leaves)]
        assert is_included(leaf, index, size, path, root)
        assert not is_included(leaf, index + 1, size, path, root)
        assert not is_included(leaf, index, size + 1, [*path, path[-1] if path else "00"], root)
    with pytest.raises(ValueError, match="no leaf"):
        tree_of(leaves, size).path()


@given(st.integers(1, 70), st.data())
def test_whatever_is_altered_proves_nothing(size: int, data: st.DataObject) -> None:
    leaves = [b"leaf %d" % number for number in range(size)]
    index = data.draw(st.integers(0, size - 1))
    tree = tree_of(leaves, index)
    leaf, path, root = leaves[index], tree.path(), tree.root()
    byte, bit = data.draw(st.integers(0, len(leaf) - 1)), data.draw(st.integers(0, 7))
    assert not is_included(flipped(leaf, byte, bit), index, size, path, root)
    assert not is_included(leaf, index, size, path, flipped(bytes.fromhex(root), 0, bit).hex())
    other = data.draw(st.integers(-2, 140).filter(lambda number: number != index))
    assert not is_included(leaf, other, size, path, root)
    # The RFC's own check does not bind the size alone: one that leads the same way up passes. The
    # checkpoint that vouches for the root says the size too.
    wrong = data.draw(st.integers(-2, 140).filter(lambda number: number != size))
    passes = is_included(leaf, index, wrong, path, root)
    assert not passes or turns(index, wrong) == turns(index, size)
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        bad = flipped(bytes.fromhex(path[at]), data.draw(st.integers(0, 31)), bit).hex()
        assert not is_included(leaf, index, size, [*path[:at], bad, *path[at + 1 :]], root)
        assert not is_included(leaf, index, size, path[:at] + path[at + 1 :], root)
    assert not is_included(leaf, index, size, [*path, "00" * 32], root)
    assert not is_included(leaf, index, size, ["no hex", *path], root)


def turns(index: int, size: int) -> str:
    """On which side each node of the path stands."""
    if size <= 1 or not 0 <= index < size:
        return ""
    k = 1
    while k * 2 < size:
        k *= 2
    if index < k:
        return turns(index, k) + "r"
    return turns(index - k, size - k) + "l"


def flipped(what: bytes, at: int, bit: int) -> bytes:
    return what[:at] + bytes([what[at] ^ (1 << bit)]) + what[at + 1 :]


def test_a_node_is_no_leaf() -> None:
    leaves = [b"a", b"b"]
    inner = b"".join(sha256(b"\0" + leaf).digest() for leaf in leaves)
    assert not is_included(inner, 0, 1, [], tree_of(leaves).root())
