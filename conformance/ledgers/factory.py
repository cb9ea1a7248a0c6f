"""What a ledger's author says of it: where another new one may be made, and how it is opened."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import ClassVar

from costspan.core.settle.ledger import Ledger, open_url


class LedgerFactory:
    """Makes ledgers of one kind; subclass it in a module that can be imported by name.

    The suite opens the same ledger from several threads and processes. Another process makes no
    factory: it imports this class and calls `ledger` with the URL it is told.

    Attributes:
        name: What the kind is called.
    """

    name: ClassVar[str] = ""

    def open(self, folder: Path) -> None:
        """Get ready: `folder` is empty, and yours until `close`."""

    def close(self) -> None:
        """Remove what was made."""

    def url(self) -> str:
        """The URL of a place where no ledger is; at every call another."""
        raise NotImplementedError

    def empty(self) -> str:
        """The URL of an empty ledger, or where one can be: the suite needs a hundred and more.

        By default a place where none is. Where it takes long to make one, it may be one that the
        suite is done with, emptied.
        """
        return self.url()

    def gone(self, url: str) -> None:
        """The suite is done with this one, and closed it: remove it, if it is in the way."""

    @classmethod
    def ledger(cls, url: str, *, create: bool = True) -> Ledger:
        """Open it: by default as `costspan` does, by the plugin whose scheme it is."""
        return open_url(url, create=create)

    def restart_server(self) -> bool:
        """Kill -9 the server, and start it again; False where no server of ours is to be killed."""
        return False


def named(name: str) -> type[LedgerFactory]:
    """The factory of `module:Class`.

    Raises:
        TypeError: if it is something else.
    """
    module, _, attribute = name.partition(":")
    found: object = getattr(import_module(module), attribute)
    if not (isinstance(found, type) and issubclass(found, LedgerFactory)):
        raise TypeError(f"{found!r} is no subclass of LedgerFactory, of costspan.conformance")
    return found


def name_of(factory: type[LedgerFactory]) -> str:
    """What `named` finds it by, in another process too."""
    return f"{factory.__module__}:{factory.__qualname__}"
