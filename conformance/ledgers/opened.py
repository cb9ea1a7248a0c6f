"""What makes ledgers, opened once in a run of pytest: its server is started once, too."""

from __future__ import annotations

import pytest

from costspan.conformance.ledgers.factory import LedgerFactory

_OPENED = pytest.StashKey[dict[type[LedgerFactory], LedgerFactory]]()


def opened(
    kind: type[LedgerFactory], config: pytest.Config, folders: pytest.TempPathFactory
) -> LedgerFactory:
    """The factory of a class, open; it is closed at the end of the run."""
    factories = config.stash.setdefault(_OPENED, {})
    if kind not in factories:
        factory = kind()
        factory.open(folders.mktemp("ledgers"))
        config.add_cleanup(factory.close)
        factories[kind] = factory
    return factories[kind]
