"""`costspan plugins`: what was found, what it does, and what is wrong with it."""

from __future__ import annotations

import argparse
from importlib.metadata import entry_points
from typing import Any

import msgspec
from rich.text import Text

from costspan.cli.exits import BAD, OK
from costspan.cli.printing import Column, Page, counted, print_json, shown
from costspan.core import hooks


class Plugin(msgspec.Struct, frozen=True):
    """A plugin: the module its entry point names, who ships it, and the hooks it implements."""

    name: str
    module: str
    distribution: str
    version: str
    hooks: tuple[str, ...]
    problem: str | None


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `plugins`."""
    parser.add_argument("--json", action="store_true", help="one JSON document")


def run(options: argparse.Namespace) -> int:
    """List the plugins; 1 if one of them failed."""
    found = plugins()
    if options.json:
        print_json({"plugins": msgspec.to_builtins(found)})
    else:
        _print(Page(), found)
    return BAD if any(plugin.problem for plugin in found) else OK


def plugins() -> list[Plugin]:
    """Every plugin that an entry point names, loaded or not."""
    manager = hooks.plugins()
    wrong: dict[str, str] = {}
    for problem in hooks.problems:
        wrong.setdefault(problem.plugin, f"{problem.hook}: {problem.error}")
    found: list[Plugin] = []
    for point in sorted(entry_points(group=hooks.GROUP), key=lambda point: point.name):
        plugin = manager.get_plugin(point.name)
        callers = manager.get_hookcallers(plugin) if plugin is not None else None
        found.append(
            Plugin(
                point.name,
                point.value,
                point.dist.name if point.dist is not None else "",
                point.dist.version if point.dist is not None else "",
                tuple(sorted(caller.name for caller in callers or ())),
                wrong.get(point.name),
            )
        )
    return found


def _print(page: Page, found: list[Plugin]) -> None:
    rows: list[list[Any]] = []
    for each in found:
        state = Text("ok", "green") if each.problem is None else Text(shown(each.problem), "red")
        shipped = f"{each.distribution} {each.version}".strip()
        rows.append([each.name, ", ".join(each.hooks) or "none", shipped, each.module, state])
    headings = ("plugin", "hooks", "shipped by", "module", "state")
    page.table([Column(heading) for heading in headings], rows)
    bad = sum(each.problem is not None for each in found)
    page.line()
    page.line(f"{counted(len(found), 'plugin')}, {bad} with a problem", "red" if bad else "")
