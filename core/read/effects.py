"""Why one sum is more than another: more events, larger ones, or dearer ones; exact to the pico.

The steps are taken in a fixed order, each from where the one before it came to. With n events, t
tokens and cost c in each window:

    volume  round(c0 * n1 / n0) - c0                        more events, as large and dear as before
    size    round(c0 * t1 / t0) - round(c0 * n1 / n0)       more tokens an event, as dear as before
    mix     c1 - round(c0 * t1 / t0)                        the same tokens, dearer

They telescope: whatever the rounding, the three are c1 - c0. What is new or gone is volume alone.
Where a window has no tokens (tools, images), nothing is said of size: what is not volume is mix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import NamedTuple

from costspan.core.money import round_ratio

SKETCH_MAX = 256
"""Up to so many distinct names are counted exactly; of more, a sixteenth more or less."""
_HASHES = 1 << 64


class Effects(NamedTuple):
    """What a difference is made of, pico-USD, signed."""

    volume: int
    size: int
    mix: int

    def plus(self, other: Effects) -> Effects:
        """Both together."""
        return Effects(self.volume + other.volume, self.size + other.size, self.mix + other.mix)


NO_EFFECTS = Effects(0, 0, 0)


class Figures:
    """What one window holds of one key: events that cost something, tokens, pico-USD."""

    __slots__ = ("cost", "events", "tokens")

    def __init__(self, events: int = 0, tokens: int = 0, cost: int = 0) -> None:
        self.events = events
        self.tokens = tokens
        self.cost = cost

    def add(self, events: int, tokens: int, cost: int) -> None:
        """Count more of it."""
        self.events += events
        self.tokens += tokens
        self.cost += cost


def effects_of(before: Figures, after: Figures) -> Effects:
    """What the difference between two windows is made of; see above."""
    if not before.events or not after.events:
        return Effects(after.cost - before.cost, 0, 0)
    as_many = round_ratio(before.cost * after.events, before.events)
    as_large = as_many
    if before.tokens and after.tokens:
        as_large = round_ratio(before.cost * after.tokens, before.tokens)
    return Effects(as_many - before.cost, as_large - as_many, after.cost - as_large)


class Distinct:
    """How many different names were seen, in bounded memory: the least of their hashes are kept."""

    __slots__ = ("_kept", "_most")

    def __init__(self) -> None:
        self._kept: set[int] = set()
        self._most = _HASHES

    def add(self, name: str) -> None:
        """See a name, perhaps again."""
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        number = int.from_bytes(digest, "big")
        if number >= self._most or number in self._kept:
            return
        self._kept.add(number)
        if len(self._kept) > SKETCH_MAX:
            self._kept.remove(max(self._kept))
            self._most = max(self._kept)

    @property
    def is_exact(self) -> bool:
        """Whether every name is still known."""
        return self._most == _HASHES

    def count(self) -> int:
        """How many: exact, or estimated from how densely the least hashes lie."""
        if self.is_exact:
            return len(self._kept)
        return (SKETCH_MAX - 1) * _HASHES // self._most


class Pair:
    """A key in both windows."""

    __slots__ = ("after", "before", "is_partial", "requests", "sessions")

    def __init__(self, *, is_partial: bool = False, counts_loops: bool = False) -> None:
        self.before = Figures()
        self.after = Figures()
        self.is_partial = is_partial
        self.sessions = (Distinct(), Distinct()) if counts_loops else None
        self.requests = (Distinct(), Distinct()) if counts_loops else None

    @property
    def difference(self) -> int:
        """How much more the window after costs (pico-USD)."""
        return self.after.cost - self.before.cost

    @property
    def effects(self) -> Effects:
        """What the difference is made of."""
        return effects_of(self.before, self.after)

    def add(self, is_after: bool, events: int, tokens: int, cost: int) -> None:
        """Count something in one of the windows."""
        (self.after if is_after else self.before).add(events, tokens, cost)


class Tally:
    """Pairs by key, so many at most: beyond that the cheapest keys are summed up without a name.

    A key that comes (again) after that may have lost its beginning: it `is_partial`.
    """

    def __init__(self, keys_max: int, *, counts_loops: bool = False) -> None:
        self.pairs: dict[str, Pair] = {}
        self.rest = Pair()
        self.is_cut = False
        self._keys_max = keys_max
        self._counts_loops = counts_loops

    def pair(self, key: str) -> Pair:
        """The pair of a key, perhaps a new one."""
        found = self.pairs.get(key)
        if found is None:
            if len(self.pairs) >= 2 * self._keys_max:
                self._cut()
            found = Pair(is_partial=self.is_cut, counts_loops=self._counts_loops)
            self.pairs[key] = found
        return found

    def _cut(self) -> None:
        ordered = _ordered(self.pairs, lambda pair: pair.before.cost + pair.after.cost)
        for key in ordered[self._keys_max :]:
            gone = self.pairs.pop(key)
            self.rest.before.add(gone.before.events, gone.before.tokens, gone.before.cost)
            self.rest.after.add(gone.after.events, gone.after.tokens, gone.after.cost)
        self.is_cut = True

    def leading(self, at_most: int) -> tuple[list[str], list[str]]:
        """(the keys that moved most, the others), each in order of how much they moved."""
        ordered = _ordered(self.pairs, lambda pair: abs(pair.difference))
        return ordered[:at_most], ordered[at_most:]


def _ordered(pairs: dict[str, Pair], weight: Callable[[Pair], int]) -> list[str]:
    return sorted(pairs, key=lambda key: (-weight(pairs[key]), key))


def together(pairs: Iterable[Pair]) -> tuple[Figures, Figures, Effects]:
    """Figures before and after of several pairs, and their effects added up."""
    before, after, effects = Figures(), Figures(), NO_EFFECTS
    for pair in pairs:
        before.add(pair.before.events, pair.before.tokens, pair.before.cost)
        after.add(pair.after.events, pair.after.tokens, pair.after.cost)
        effects = effects.plus(pair.effects)
    return before, after, effects
