"""`costspan rules`: the rules that decide, checked and compared."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from rich.text import Text

from costspan.cli.boxes import Box, Compared, compare, never_decides
from costspan.cli.exits import BAD, OK, UsageError
from costspan.cli.moments import when
from costspan.cli.options import settings_options
from costspan.cli.printing import Column, Page, counted, joined, print_json, shown, to_stderr
from costspan.cli.settings import open_books, reader_settings_of, settings_of
from costspan.core.decide import (
    DOMAINS,
    Rule,
    RuleError,
    RuleSet,
    load_profile,
    load_rules,
    profile_names,
)
from costspan.core.decide.profiles import KNOBS
from costspan.core.decide.rules import TableName
from costspan.core.policy import rules_of

_TABLES: tuple[TableName, ...] = get_args(TableName)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of `rules`."""
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = commands.add_parser(
        "list", parents=[settings_options()], help="every table, rule by rule, as the settings say"
    )
    check = commands.add_parser(
        "check", parents=[settings_options()], help="whether a rule file can be used"
    )
    check.add_argument("file", metavar="FILE", type=Path)
    profile = commands.add_parser(
        "profile", parents=[settings_options()], help="a profile and its knobs; without NAME, all"
    )
    profile.add_argument("name", metavar="NAME", nargs="?")
    diff = commands.add_parser(
        "diff", parents=[settings_options()], help="where two rule sets decide differently"
    )
    diff.add_argument("before", metavar="FILE_A", help="a rule file or the name of a profile")
    diff.add_argument("after", metavar="FILE_B", help="likewise")
    diff.add_argument("--exit-code", action="store_true", help="exit with 1 if they differ")
    listing.add_argument(
        "--ledger-rules",
        action="store_true",
        help="the policies the ledger was decided by, and the rules of the last one",
    )
    for command in (listing, check, profile, diff):
        command.add_argument("--json", action="store_true", help="one JSON document")


def run(options: argparse.Namespace) -> int:
    """Do what was asked."""
    if options.action == "list" and options.ledger_rules:
        return _list_ledger(options)
    if options.action == "list":
        return _list(rules_of(settings_of(options)), options.json)
    if options.action == "check":
        return _check(options)
    if options.action == "profile":
        return _profile(options)
    return _diff(options)


def _list(rules: RuleSet, as_json: bool) -> int:
    if as_json:
        print_json({"sha256": rules.sha256, **rules.plain()})
        return OK
    page = Page()
    page.line(joined(Text(f"profile {rules.profile}", "bold"), f"rules {rules.sha256[:12]}"))
    page.line("in each table the first rule that matches decides; * marks your own", "dim")
    columns = [
        Column("table", style="dim"),
        Column("rule"),
        Column("when"),
        Column("then"),
        Column("because"),
    ]
    rows: list[list[Any]] = []
    for table in _TABLES:
        for rule in rules.tables[table]:
            mark = Text(f"{shown(rule.id)}{'' if rule.builtin else '*'}")
            mark.stylize("bold" if rule.builtin else "bold magenta")
            rows.append([table, mark, _when(rule.when), rule.then, rule.because])
    page.table(columns, rows)
    return OK


def _list_ledger(options: argparse.Namespace) -> int:
    """Every policy of the ledger and since when, then the rules in force."""
    with open_books(reader_settings_of(options)) as books:
        policies, rules, lists = books.ledger.policy_parts()
        charged = books.ledger.charge_books()
        to_stderr(f"ledger: {books.url}")
    plain: list[dict[str, Any]] = [
        {
            "effective_from": each.effective_from,
            "by": each.by,
            "profile": rules[each.rules].profile,
            "rules": each.rules,
            "prices": [
                f"{lists[sha].id} {lists[sha].source_version or ''}".strip() for sha in each.books
            ],
            "charges": None if each.charges is None else charged[each.charges].id,
            "charges_sha256": each.charges,
        }
        for each in policies
    ]
    if options.json:
        in_force = rules[policies[-1].rules].plain() if policies else None
        print_json({"policies": plain, "in_force": in_force})
        return OK
    page = Page()
    names = ("events from", "profile", "rules", "prices", "charges")
    page.table(
        [Column(name, whole=name != "prices") for name in names],
        (
            [
                when(each.effective_from) if each.effective_from else "the beginning",
                rules[each.rules].profile,
                each.rules[:12],
                ", ".join(said["prices"]),
                "" if each.charges is None else f"{said['charges']} {each.charges[:12]}",
            ]
            for each, said in zip(policies, plain, strict=True)
        ),
    )
    page.line()
    return _list(rules[policies[-1].rules], False) if policies else OK


def _when(conditions: Iterable[tuple[str, frozenset[str]]]) -> str:
    said = [f"{feature}={'|'.join(sorted(values))}" for feature, values in conditions]
    return " ".join(said) or "always"


def _check(options: argparse.Namespace) -> int:
    rules = _loaded(options.file, settings_of(options).profile)
    own = {table: [r for r in rules.tables[table] if not r.builtin] for table in _TABLES}
    dead = [
        (table, rule, rule.builtin)
        for table in _TABLES
        for rule in never_decides(rules.tables[table])
    ]
    own_dead = [(table, rule) for table, rule, builtin in dead if not builtin]
    shadowed = [(table, rule) for table, rule, builtin in dead if builtin]
    if options.json:
        print_json(
            {
                "file": str(options.file),
                "profile": rules.profile,
                "sha256": rules.sha256,
                "own": {
                    table: [rule.id for rule in found] for table, found in own.items() if found
                },
                "never_decide": [{"table": table, "rule": rule.id} for table, rule, _ in dead],
            }
        )
        return BAD if own_dead else OK
    page = Page()
    many = sum(map(len, own.values()))
    page.line(
        f"{options.file}: {counted(many, 'rule')} of your own in front of profile {rules.profile}",
        "bold",
    )
    for table, found in own.items():
        for rule in found:
            page.line(f"  {table} {rule.id}: {_when(rule.when)} -> {rule.then}")
    for table, rule in own_dead:
        page.line(f"{table} {rule.id} never decides: rules before it take all it would", "red")
    for table, rule in shadowed:
        page.line(f"{table} {rule.id} of the profile never decides any more", "yellow")
    if not own_dead:
        page.line("it can be used", "green")
    return BAD if own_dead else OK


def _profile(options: argparse.Namespace) -> int:
    names = [options.name] if options.name else list(profile_names())
    profiles = {name: load_profile(name) for name in names}
    if options.json:
        print_json({name: rules.plain() for name, rules in profiles.items()})
        return OK
    page = Page()
    columns = [Column("knob"), *(Column(name) for name in names), Column("can be", style="dim")]
    page.table(
        columns,
        (
            [
                knob,
                *(rules.knobs[knob] for rules in profiles.values()),
                " | ".join(allowed) or "0 to 1",
            ]
            for knob, allowed in KNOBS.items()
        ),
    )
    page.line()
    page.line("choose one with --profile NAME; turn a knob in [knobs] of your rule file", "dim")
    return OK


def _diff(options: argparse.Namespace) -> int:
    before, after = _rules(options.before), _rules(options.after)
    knobs = {
        knob: (before.knobs[knob], after.knobs[knob])
        for knob in KNOBS
        if before.knobs[knob] != after.knobs[knob]
    }
    tables: dict[TableName, Compared] = {table: compare(before, after, table) for table in _TABLES}
    differ = bool(knobs) or any(found.differences for found in tables.values())
    if options.json:
        print_json(
            {
                "knobs": {knob: {"before": a, "after": b} for knob, (a, b) in knobs.items()},
                "tables": {
                    table: {
                        "combinations": found.combinations,
                        "differ": sum(each.combinations for each in found.differences),
                        "differences": [
                            {
                                "when": {name: sorted(v) for name, v in each.features.items()},
                                "combinations": each.combinations,
                                "before": {"rule": each.before.id, "then": each.before.then},
                                "after": {"rule": each.after.id, "then": each.after.then},
                            }
                            for each in found.differences
                        ],
                    }
                    for table, found in tables.items()
                },
            }
        )
    else:
        _print_diff(Page(), knobs, tables, differ)
    return BAD if differ and options.exit_code else OK


def _print_diff(
    page: Page,
    knobs: dict[str, tuple[str, str]],
    tables: Mapping[TableName, Compared],
    differ: bool,
) -> None:
    for knob, (a, b) in knobs.items():
        page.line(f"knob {knob}: {a} -> {b}", "yellow")
    rows: list[list[Any]] = []
    for table, found in tables.items():
        for each in found.differences:
            rows.append(
                [
                    table,
                    _effect(each.before),
                    _effect(each.after),
                    f"{each.combinations:,}",
                    _narrow(each.features),
                ]
            )
    if rows:
        number = Column("combinations", is_number=True)
        page.table(
            [Column("table"), Column("before"), Column("after"), number, Column("when")], rows
        )
        page.line()
    for table, found in tables.items():
        if found.differences:
            many = sum(each.combinations for each in found.differences)
            page.line(
                f"{table}: {many:,} of {found.combinations:,} combinations are decided differently"
            )
    if not differ:
        page.line("the same decision in every case", "green")


def _effect(rule: Rule) -> Text:
    return joined(Text(rule.id, "bold"), rule.then, by=" ")


def _narrow(features: Box) -> str:
    """The features of a box; where most values are in it, those that are not."""
    said: list[str] = []
    for name, values in features.items():
        outside = frozenset(DOMAINS[name]) - values
        if len(outside) < len(values):
            said.append(f"{name}!={'|'.join(sorted(outside))}")
        else:
            said.append(f"{name}={'|'.join(sorted(values))}")
    return " ".join(said) or "always"


def _rules(name: str) -> RuleSet:
    """A profile by its name, else the rules of a file."""
    if name in profile_names():
        return load_profile(name)
    return _loaded(Path(name))


def _loaded(path: Path, profile: str | None = None) -> RuleSet:
    text = _read(path)
    try:
        return load_rules(text, profile)
    except RuleError as error:
        raise UsageError(f"{path}: {error}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        known = ", ".join(profile_names())
        raise UsageError(f"{path}: no such file, and no profile (they are {known})") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}") from error
