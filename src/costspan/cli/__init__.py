"""The command `costspan`: one file a command, and here the way to it.

A command is a module of this package with `arguments(parser)` and `run(options) -> int`. Only the
command that is asked for is imported.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn, cast

from costspan.cli.exits import INTERRUPTED, LEDGER, MEANING, USAGE, code_of
from costspan.cli.options import settings_options

COMMANDS: dict[str, str] = {
    "demo": "a real agent application, three tenants at once, and books that balance",
    "report": "who spent what: sums by owner, bucket or any other field",
    "explain": "why something cost what it cost: attempts, witnesses, prices, rules, postings",
    "statement": "what one tenant is charged for a month, and why",
    "doctor": "name every silent trap that can be seen, and what to do about it",
    "drain": "settle what waits in the spool into the ledger",
    "ingest": "add observations from a file, or last year's calls from LiteLLM, Langfuse or FOCUS",
    "rebuild": "build the books anew from the journal, and compare",
    "invoices": "keep what providers bill: import, list, show",
    "reconcile": "the books beside the invoices: every difference, its causes, its review",
    "allocate": "share the platform's pools among tenants, as entries of their own",
    "backtest": "score the ways to allocate against what is known",
    "close": "seal a month: what comes later is an adjustment",
    "verify": "prove that the books are what was sealed",
    "assign": "say whose an event is",
    "adjust": "adjust what a tenant is charged",
    "credit": "credit a tenant",
    "restate": "decide events again with other prices or rules; post the differences",
    "prune": "archive the journal of sealed months",
    "erase": "erase a person from the books",
    "replay": "settle a scenario file and compare with the books it expects",
    "rules": "list, check and compare the rules that decide",
    "prices": "list prices, and say why a model has the price it has",
    "plugins": "list the plugins found, their hooks, and what is wrong with them",
}
"""Command -> its line of help; its module is the file of that name beside this one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (see `exits`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _parser(arguments).parse_args(arguments)
    except SystemExit as stop:  # argparse has said it all: help, version or a usage error
        return stop.code if isinstance(stop.code, int) else USAGE
    _never_fail_to_print()
    try:
        code = int(import_module(f"costspan.cli.{options.command}").run(options))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print(f"\ncostspan {options.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`head`) has seen enough; keep the interpreter from saying so at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        expected = code_of(error)
        if expected is None:
            raise
        print(f"costspan {options.command}: {_said(error, expected)}", file=sys.stderr)
        return expected


class _Parser(argparse.ArgumentParser):
    """Its complaints repeat what was typed; so do those of its commands, which are of its class."""

    def error(self, message: str) -> NoReturn:
        from costspan.core.ledger_urls import without_logins

        super().error(_shown(without_logins(message)))


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    from costspan import __version__

    raw = argparse.RawDescriptionHelpFormatter
    made = _Parser(
        "costspan",
        description="Whose each LLM dollar is.",
        epilog=MEANING,
        formatter_class=raw,
        parents=[settings_options()],
        allow_abbrev=False,
    )
    parser = cast("argparse.ArgumentParser", made)  # its commands are made by the same class
    parser.add_argument("--version", action="version", version=f"costspan {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, line in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=line,
            description=line[0].upper() + line[1:] + ".",
            epilog=MEANING,
            formatter_class=raw,
            parents=[settings_options()],
            allow_abbrev=False,
            # What a command says of an option goes before what is said of it everywhere.
            conflict_handler="resolve",
        )
        if name in arguments:
            import_module(f"costspan.cli.{name}").arguments(command)
    return parser


def _never_fail_to_print() -> None:
    """A terminal or pipe that cannot show a character shows its escape instead."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _shown(text: str) -> str:
    from costspan.core.read.words import shown  # the way to a command stays short

    return shown(text)


def _said(error: Exception, code: int) -> str:
    """What went wrong. A file's name, or what a file says, gives a terminal no commands."""
    return _shown(_text(error, code))


def _text(error: Exception, code: int) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = str(error) or type(error).__name__
    if code == LEDGER and "ledger" not in text:  # a driver's own words do not say of what they are
        return f"the ledger could not be read: {text}. Keep the file; nothing was changed"
    return text
