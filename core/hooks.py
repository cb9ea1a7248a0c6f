"""The hooks a plugin may implement, and the one loop that calls them.

A plugin is any module named by an entry point of the group `costspan`. The loop is ours, because
pluggy's own call stops at the first plugin that raises: here each one is isolated, named and
counted, and a plugin that cannot even be imported costs nobody else anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from costspan.core.counters import count

if TYPE_CHECKING:
    from costspan.core.prices import PriceBook
    from costspan.core.settle.ledger import Ledger

GROUP = "costspan"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Specs:
    """Every hook, one job each."""

    @hookspec
    def prices(self) -> list[PriceBook]:
        """Price books this plugin brings, best first; loaded when a ledger needs prices."""
        raise NotImplementedError

    @hookspec
    def open_ledger(self, url: str, create: bool) -> Ledger | None:
        """The ledger at `url` if its scheme is this plugin's, else None.

        Raises:
            LedgerMissing: if there is none and `create` is false.
        """
        raise NotImplementedError


class Problem(NamedTuple):
    """A plugin that failed: its name, the hook (or `load`), and the error's type and text."""

    plugin: str
    hook: str
    error: str


problems: list[Problem] = []


def _failed(plugin: str, hook: str, error: BaseException) -> None:
    count(f"plugin_failed:{plugin}")
    problems.append(Problem(plugin, hook, f"{type(error).__name__}: {error}"))


@cache
def plugins() -> pluggy.PluginManager:
    """Every plugin that could be loaded, ours found by entry point the way a stranger's is."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Specs)
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        if manager.has_plugin(point.name):
            continue
        try:
            manager.register(point.load(), point.name)
            manager.check_pending()
        except Exception as error:
            _failed(point.name, "load", error)
            if manager.has_plugin(point.name):
                manager.unregister(name=point.name)
    return manager


def call(hook: str, **arguments: Any) -> Iterator[tuple[str, Any]]:
    """(plugin, result) of each implementation of `hook`; one that raises is counted and skipped."""
    for implementation in getattr(plugins().hook, hook).get_hookimpls():
        try:
            names = implementation.argnames
            result = implementation.function(**{name: arguments[name] for name in names})
        except Exception as error:
            _failed(implementation.plugin_name, hook, error)
            continue
        yield implementation.plugin_name, result
