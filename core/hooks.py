"""The hooks a plugin may implement, and the one loop that calls them.

A plugin is any module named by an entry point of the group `costspan`. The loop is ours, because
pluggy's own call stops at the first plugin that raises. Here each call has a daemon thread and a
deadline of its own: a plugin that raises, exits or hangs, or that cannot even be imported, is
named and counted, and costs nobody else anything.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pluggy

from costspan.core.counters import count

if TYPE_CHECKING:
    from costspan.core.invoices.document import Document, Order
    from costspan.core.prices import PriceBook
    from costspan.core.reconcile.variance import Variance
    from costspan.core.settle.ledger import Ledger
    from costspan.core.sinks import Batch

GROUP = "costspan"
DEADLINE_SECONDS = 30.0
"""A plugin that takes longer hangs: it is called no more until that call has come back."""

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

        Called without a deadline, where the ledger is opened.

        Raises:
            LedgerMissing: if there is none and `create` is false.
        """
        raise NotImplementedError

    @hookspec
    def import_invoice(self, order: Order) -> list[Document] | None:
        """The documents of what a provider billed at the place that `order` names.

        None if the place is not this plugin's. Called without a deadline: a month can be long.

        Raises:
            InvoiceError: if it is this plugin's but cannot be fetched or read.
        """
        raise NotImplementedError

    @hookspec
    def posted(self, batch: Batch) -> None:
        """Take a batch of postings; returning says that they are taken, raising that they are not.

        Every posting comes in the order of its number, at least once: a batch that was not taken
        comes again, the same to the byte. What comes twice is known by its number.
        """
        raise NotImplementedError

    @hookspec
    def variance_found(self, variance: Variance) -> None:
        """A difference between books and invoice that is over the threshold, and new.

        Where any implementation fails, all are called again at the next reconciliation.
        """
        raise NotImplementedError


class Problem(NamedTuple):
    """A plugin that failed: its name, the hook (or `load`), and the error's type and text."""

    plugin: str
    hook: str
    error: str


problems: list[Problem] = []
"""What went wrong in this process; of each plugin and hook the last."""


class Call(threading.Thread):
    """One call of a plugin, in a thread that nobody has to wait for."""

    def __init__(self, plugin: str, hook: str, work: Callable[[], Any]) -> None:
        super().__init__(name=f"costspan-{hook}-{plugin}", daemon=True)
        self.plugin = plugin
        self.hook = hook
        self.result: Any = None
        self.error: BaseException | None = None
        self.has_returned = False
        self._work = work

    def run(self) -> None:
        """Call it; whatever it raises ends here, an exit of the thread too."""
        inside = _inside[self.plugin]
        try:
            self.result = self._work()
            self.has_returned = True
        except BaseException as error:
            self.error = error
        finally:
            inside.release()


class PluginFailed(Exception):
    """A plugin raised, or could not be called; it is counted and listed already."""


class PluginHung(PluginFailed):
    """A plugin has not come back yet. `call` is what it has not come back from, if we made it."""

    def __init__(self, text: str, call: Call | None = None) -> None:
        super().__init__(text)
        self.call = call


_inside: dict[str, threading.Lock] = {}
"""Plugin -> held while one of its calls is under way: never are two threads stuck in a plugin."""
_hung: set[str] = set()
_loading = threading.Lock()
_loaded: pluggy.PluginManager | None = None


def within(plugin: str, hook: str, work: Callable[[], Any]) -> Any:
    """What `work` of a plugin returns, waited for no longer than the deadline.

    Raises:
        PluginHung: if it, or an earlier call of this plugin, has not come back.
        PluginFailed: if it raised anything, `SystemExit` and the like too.
    """
    inside = _inside.setdefault(plugin, threading.Lock())
    if not inside.acquire(timeout=0 if plugin in _hung else DEADLINE_SECONDS):
        raise PluginHung(f"plugin {plugin} has not come back from an earlier call")
    _hung.discard(plugin)
    call = Call(plugin, hook, work)
    try:
        call.start()
    except RuntimeError as error:  # no more threads, or the interpreter is shutting down
        inside.release()
        raise PluginFailed(f"plugin {plugin} could not be called: {error}") from error
    call.join(DEADLINE_SECONDS)
    if call.is_alive():
        _hung.add(plugin)
        text = f"has not come back for {DEADLINE_SECONDS:g} seconds"
        count(f"plugin_hung:{plugin}")
        _list(Problem(plugin, hook, text))
        raise PluginHung(f"plugin {plugin} {text}", call)
    if call.error is not None:
        text = failed(plugin, hook, call.error)
        call.error = None  # its traceback holds on to everything the plugin had in hand
        raise PluginFailed(text)
    return call.result


def failed(plugin: str, hook: str, error: BaseException) -> str:
    """Count and list what a plugin raised; returns what it said."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # its own text raises too
        text = type(error).__name__
    count(f"plugin_failed:{plugin}")
    _list(Problem(plugin, hook, text))
    return text


def _list(problem: Problem) -> None:
    for at, known in enumerate(problems):
        if known[:2] == problem[:2]:
            problems[at] = problem
            return
    problems.append(problem)


def plugins() -> pluggy.PluginManager:
    """Every plugin that could be loaded, ours found by entry point the way a stranger's is."""
    global _loaded
    with _loading:
        if _loaded is None:
            _loaded = _load()
        return _loaded


def _load() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Specs)
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        if manager.has_plugin(point.name):
            continue
        try:
            module = within(point.name, "load", point.load)
        except PluginFailed:
            continue
        try:
            manager.register(module, point.name)
            manager.check_pending()
        except (Exception, SystemExit) as error:
            failed(point.name, "load", error)
            if manager.has_plugin(point.name):
                manager.unregister(name=point.name)
    return manager


def implementations(hook: str) -> list[tuple[str, Callable[..., Any]]]:
    """(plugin, function) of each implementation of a hook.

    A function takes what its implementation names, and raises if that returns what it must not.
    """
    check = _CHECKS.get(hook, lambda result: result)
    return [
        (each.plugin_name, partial(_checked, each.function, frozenset(each.argnames), check))
        for each in getattr(plugins().hook, hook).get_hookimpls()
    ]


def _checked(
    function: Callable[..., Any],
    names: frozenset[str],
    check: Callable[[Any], Any],
    **arguments: Any,
) -> Any:
    return check(function(**{name: each for name, each in arguments.items() if name in names}))


def call(hook: str, **arguments: Any) -> Iterator[tuple[str, Any]]:
    """(plugin, result) of each implementation of `hook`; one that fails is counted and skipped."""
    for plugin, function in implementations(hook):
        try:
            result = within(plugin, hook, partial(function, **arguments))
        except PluginFailed:
            continue
        yield plugin, result


def _books(result: object) -> list[PriceBook]:
    """The price books that a plugin returned.

    Raises:
        TypeError: if it returned anything else.
    """
    from costspan.core.prices import PriceBook

    books = list(cast("Iterable[object]", result))
    for book in books:
        if not isinstance(book, PriceBook):
            raise TypeError(f"a {type(book).__name__} among its results, which is no PriceBook")
    return cast("list[PriceBook]", books)


def _nothing(result: object) -> None:
    """What a sink returned.

    Raises:
        TypeError: if it is anything: a coroutine or a generator has not even begun its work.
    """
    if result is not None:
        raise TypeError(f"it returned a {type(result).__name__}, not None: is it taken or not?")


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "prices": _books,
    "posted": _nothing,
    "variance_found": _nothing,
}
"""What a hook's result must be, looked at where the plugin runs: its iterators are its code too."""


def _after_fork_in_child() -> None:
    """The threads that hold these locks do not exist here."""
    global _loading
    _loading = threading.Lock()
    _inside.clear()
    _hung.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
