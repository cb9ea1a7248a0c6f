"""What drove a rise: two windows, and every dimension's keys in the order of how far they moved."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from costspan.core.money import format_usd, round_ratio
from costspan.core.read.effects import Effects, Figures

REST = "(all others)"
NO_LOOP, NO_TOOL = "(no agent)", "(no tool)"
NO_TEMPLATE, NO_SESSION = "(no template)", "(no session)"
NAMELESS = frozenset({NO_LOOP, NO_TOOL, NO_TEMPLATE, NO_SESSION})


class Window(NamedTuple):
    """A half-open span of time, ns UTC."""

    since: int
    until: int

    def has(self, at_ns: int) -> bool:
        """Whether a moment is within."""
        return self.since <= at_ns < self.until

    def before(self) -> Window:
        """The window just before, equally long."""
        return Window(2 * self.since - self.until, self.since)


class Driver(msgspec.Struct, frozen=True, kw_only=True):
    """One key's part of the rise; amounts in pico-USD.

    `state` is `both`, `new`, `vanished`, or `partial` where so many keys came that the beginning of
    this one may stand among all others. `loop` has what only loops are counted by.
    """

    key: str
    state: str
    before: Figures
    after: Figures
    effects: Effects
    loop: Loop | None = None

    @property
    def difference(self) -> int:
        """How much more it costs (pico-USD)."""
        return self.after.cost - self.before.cost


class Loop(msgspec.Struct, frozen=True):
    """Different sessions and requests, (before, after); `is_exact`: every one of them was known."""

    sessions: tuple[int, int]
    requests: tuple[int, int]
    is_exact: bool


class Spikes(msgspec.Struct, frozen=True, kw_only=True):
    """Two windows and what moved between them: dimension -> its drivers, greatest first.

    `unpriced` counts the events of each window that are of unknown cost: they are in no figure.
    """

    windows: tuple[Window, Window]
    before: Figures
    after: Figures
    effects: Effects
    drivers: dict[str, list[Driver]]
    unpriced: tuple[int, int]
    is_cut: bool

    @property
    def difference(self) -> int:
        """How much more the second window costs (pico-USD)."""
        return self.after.cost - self.before.cost

    def share(self, difference: int) -> int | None:
        """A difference in thousandths of the whole; None where nothing moved."""
        whole = self.difference
        if not whole:
            return None
        return round_ratio(difference * 1000 * (1 if whole > 0 else -1), abs(whole))

    def plain(self) -> dict[str, Any]:
        """As plain JSON values; amounts are decimal strings of USD, times ns UTC."""
        return {
            "before": _plain_window(self.windows[0], self.before, self.unpriced[0]),
            "after": _plain_window(self.windows[1], self.after, self.unpriced[1]),
            "difference": format_usd(self.difference),
            **_plain_effects(self.effects),
            "is_cut": self.is_cut,
            "drivers": {
                by: [self._plain_driver(each) for each in found]
                for by, found in self.drivers.items()
            },
        }

    def _plain_driver(self, each: Driver) -> dict[str, Any]:
        plain: dict[str, Any] = {
            "key": each.key,
            "state": each.state,
            "before": _plain_figures(each.before),
            "after": _plain_figures(each.after),
            "difference": format_usd(each.difference),
            "share_permille": self.share(each.difference),
            **_plain_effects(each.effects),
        }
        if each.loop is not None:
            plain["sessions"] = list(each.loop.sessions)
            plain["requests"] = list(each.loop.requests)
            plain["counts_are_exact"] = each.loop.is_exact
        return plain


def _plain_figures(figures: Figures) -> dict[str, Any]:
    return {
        "events": figures.events,
        "tokens": figures.tokens,
        "cost": format_usd(figures.cost),
    }


def _plain_window(window: Window, figures: Figures, unpriced: int) -> dict[str, Any]:
    span = {"since": window.since, "until": window.until}
    return {**span, **_plain_figures(figures), "unpriced": unpriced}


def _plain_effects(effects: Effects) -> dict[str, str]:
    return {name: format_usd(value) for name, value in effects._asdict().items()}
