"""What drove a rise between two windows: which tenant, agent loop, session, tool chain, template.

One pass over the events; memory is bounded by `KEYS_MAX` keys a dimension. Amounts are what stands
in the books for events now; entries that stand for no event (allocation, credits) are in none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice

from costspan.core.money import split
from costspan.core.prices.units import UNIT_COMPONENTS
from costspan.core.read.drivers import (
    NO_LOOP,
    NO_SESSION,
    NO_TEMPLATE,
    NO_TOOL,
    REST,
    Driver,
    Loop,
    Spikes,
    Window,
)
from costspan.core.read.effects import Pair, Tally, effects_of, together
from costspan.core.read.grouping import Grouping
from costspan.core.read.paths import Path, Paths
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.posting import counts_at

KEYS_MAX = 10_000
LOOPS_MAX = 500
"""Loops count their sessions and requests too, so fewer of them are kept apart."""
DRIVERS_SHOWN = 10
_EVENTS_PER_BATCH = 1000


def spikes(
    ledger: Ledger,
    after: Window,
    before: Window | None = None,
    by: tuple[str, ...] = (),
    *,
    at_most: int = DRIVERS_SHOWN,
    keys_max: int = KEYS_MAX,
    progress: Callable[[int], None] | None = None,
) -> Spikes:
    """Compare two windows.

    Args:
        ledger: The books.
        after: The window whose cost is asked about.
        before: What it is compared with; the equally long window before unless given.
        by: Fields (as `report --by`) of one more dimension.
        at_most: How many drivers of each dimension have a name.
        keys_max: How many keys of each dimension are kept apart.
        progress: Called with how many events were looked at so far.

    Raises:
        ValueError: for windows that overlap or are empty, or a field that does not exist.
    """
    before = before or after.before()
    if before.since >= before.until or after.since >= after.until:
        raise ValueError("a window must end after it begins")
    if before.since < after.until and after.since < before.until:
        raise ValueError("the two windows must not overlap: an event would be in both")
    counting = _Counting((before, after), Grouping(by) if by else None, keys_max)
    paths = Paths(ledger)
    looked_at = 0
    with ledger.snapshot():
        events = ledger.events()
        while batch := list(islice(events, _EVENTS_PER_BATCH)):
            looked_at += len(batch)
            chosen = {each.event.id: each for each in batch if counting.selects(each)}
            for event_id, path in paths.of(chosen).items() if chosen else ():
                counting.count(chosen[event_id], path)
            if progress is not None:
                progress(looked_at)
    return counting.result(at_most)


class _Counting:
    """The pass: every dimension's tally."""

    def __init__(
        self, windows: tuple[Window, Window], grouping: Grouping | None, keys_max: int
    ) -> None:
        self._windows = windows
        self._grouping = grouping
        self._whole = Pair()
        self._unpriced = [0, 0]
        self._tallies = {
            "tenant": Tally(keys_max),
            "loop": Tally(min(keys_max, LOOPS_MAX), counts_loops=True),
            "session": Tally(keys_max),
            "tool chain": Tally(keys_max),
            "prompt template": Tally(keys_max),
        }
        if grouping is not None:
            self._by = ", ".join(grouping.fields)
            self._tallies[self._by] = Tally(keys_max)

    def _window_of(self, each: Settled) -> bool | None:
        """Whether it is of the window after; None if of neither."""
        at = counts_at(each.event, each.decision)
        if at is None:
            return None
        for is_after, window in enumerate(self._windows):
            if window.has(at):
                return bool(is_after)
        return None

    def selects(self, each: Settled) -> bool:
        """Whether it has a cost and counts in one of the windows."""
        is_after = self._window_of(each)
        if is_after is None:
            return False
        if each.decision is not None and each.decision.cost is None:
            self._unpriced[is_after] += 1
        return bool(each.posted)

    def count(self, each: Settled, path: Path) -> None:
        """Count an event under its key in every dimension."""
        is_after = bool(self._window_of(each))
        facts = each.event.facts
        cost = sum([amount.cost for _, amount in each.posted])
        tokens = _tokens(facts.usage)
        self._whole.add(is_after, 1, tokens, cost)
        session = facts.session or NO_SESSION
        template = NO_TEMPLATE
        if facts.prompt_template is not None:
            template = "@".join(part for part in facts.prompt_template if part)
        for dimension, key in (
            ("session", session),
            ("tool chain", " > ".join(path.tools) or NO_TOOL),
            ("prompt template", template),
        ):
            self._tallies[dimension].pair(key).add(is_after, 1, tokens, cost)
        loop = self._tallies["loop"].pair(_loop_of(each, path))
        loop.add(is_after, 1, tokens, cost)
        assert loop.sessions is not None
        assert loop.requests is not None
        loop.requests[is_after].add(path.root)
        if facts.session is not None:
            loop.sessions[is_after].add(facts.session)
        self._shared(self._tallies["tenant"], is_after, tokens, _by_owner(each))
        if self._grouping is not None:
            keys = _by_fields(each, self._grouping)
            self._shared(self._tallies[self._by], is_after, tokens, keys)

    def _shared(self, tally: Tally, is_after: bool, tokens: int, costs: Mapping[str, int]) -> None:
        """An event that several keys share is an event of each; its tokens go by its cost."""
        weights = {key: abs(cost) for key, cost in costs.items()}
        if not any(weights.values()):
            weights = dict.fromkeys(weights, 1)
        shares = {next(iter(costs)): tokens} if len(costs) == 1 else split(tokens, weights)
        for key, cost in costs.items():
            tally.pair(key).add(is_after, 1, shares[key], cost)

    def result(self, at_most: int) -> Spikes:
        """What was counted."""
        whole = self._whole
        before, after = self._windows
        return Spikes(
            windows=(before, after),
            before=whole.before,
            after=whole.after,
            effects=effects_of(whole.before, whole.after),
            drivers={by: list(_drivers(t, at_most)) for by, t in self._tallies.items()},
            unpriced=(self._unpriced[0], self._unpriced[1]),
            is_cut=any(tally.is_cut for tally in self._tallies.values()),
        )


def _drivers(tally: Tally, at_most: int) -> Iterator[Driver]:
    """The keys that moved most, and all others as one."""
    leading, others = tally.leading(at_most)
    for key in leading:
        pair = tally.pairs[key]
        yield Driver(
            key=key,
            state=_state(pair),
            before=pair.before,
            after=pair.after,
            effects=pair.effects,
            loop=_loop(pair),
        )
    before, after, effects = together([*(tally.pairs[key] for key in others), tally.rest])
    if before.events or after.events:
        yield Driver(key=REST, state="both", before=before, after=after, effects=effects)


def _state(pair: Pair) -> str:
    if pair.is_partial:
        return "partial"
    if not pair.before.events:
        return "new"
    return "both" if pair.after.events else "vanished"


def _loop(pair: Pair) -> Loop | None:
    sessions, requests = pair.sessions, pair.requests
    if sessions is None or requests is None:
        return None
    return Loop(
        (sessions[0].count(), sessions[1].count()),
        (requests[0].count(), requests[1].count()),
        all(each.is_exact for each in (*sessions, *requests)),
    )


def _loop_of(each: Settled, path: Path) -> str:
    """The agent and the step whose repetition a loop is."""
    named = [part for part in (path.agent, path.step) if part]
    if named:
        return " / ".join(dict.fromkeys(named))
    decision = each.decision
    return "(unnamed agent)" if decision and decision.bucket == "agent" else NO_LOOP


def _by_owner(each: Settled) -> dict[str, int]:
    costs: dict[str, int] = {}
    for line, amount in each.posted:
        costs[line.owner] = costs.get(line.owner, 0) + amount.cost
    return costs


def _by_fields(each: Settled, grouping: Grouping) -> dict[str, int]:
    costs: dict[str, int] = {}
    for line, amount in each.posted:
        key = ", ".join(part or "(none)" for part in grouping.key(each, line))
        costs[key] = costs.get(key, 0) + amount.cost
    return costs


def _tokens(usage: dict[str, int] | None) -> int:
    if not usage:
        return 0
    return sum([many for name, many in usage.items() if name not in UNIT_COMPONENTS])
