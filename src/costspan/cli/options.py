"""The options of every command: where the books are, and what decides them."""

from __future__ import annotations

import argparse

_SETTINGS = (
    ("--ledger", "URL", "URL or path of the ledger"),
    ("--spool", "DIR", "folder where the processes of this machine leave their records"),
    ("--rules", "FILE", "TOML file of rules in front of the profile's"),
    ("--prices", "FILE", "TOML file of your own prices, in front of the public lists"),
    ("--charges", "FILE", "TOML file of what tenants are charged, where prices do not say it"),
    ("--profile", "NAME", "billing (default) or chargeback"),
)


def settings_options() -> argparse.ArgumentParser:
    """A parent for parsers. What is not given is absent, so that every level may be asked."""
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = parser.add_argument_group(
        "settings", "else COSTSPAN_LEDGER, …; else costspan.toml; else this user's own folder"
    )
    for option, metavar, text in _SETTINGS:
        # The spool of `drain` may be several folders; of the others the last one given counts.
        action = "append" if option == "--spool" else "store"
        group.add_argument(option, metavar=metavar, help=text, action=action)
    return parser
