r"""Texts as PostgreSQL can keep them: it has no \x00, and ids may.

\x00 becomes \x01\x01 and \x01 becomes \x01\x02, which is taken back when read and keeps the order
of texts. Surrogates stay refused, here as in every ledger: no record that holds one can be kept.
"""

from __future__ import annotations

from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format

_TEXT = 25
"""PostgreSQL's number of the type text."""


def escaped(text: str) -> str:
    r"""The text without \x00."""
    if "\x00" in text or "\x01" in text:
        return text.replace("\x01", "\x01\x02").replace("\x00", "\x01\x01")
    return text


def unescaped(text: str) -> str:
    """The text that `escaped` wrote."""
    if "\x01" in text:
        return text.replace("\x01\x01", "\x00").replace("\x01\x02", "\x01")
    return text


class _TextDumper(Dumper):
    oid = _TEXT

    def dump(self, obj: str) -> bytes:
        return escaped(obj).encode()


class _BinaryTextDumper(_TextDumper):
    format = Format.BINARY


class _TextLoader(Loader):
    def load(self, data: Buffer) -> str:
        return unescaped(str(data, "utf-8"))


class _BinaryTextLoader(_TextLoader):
    format = Format.BINARY


def adapt(context: AdaptContext) -> None:
    """Let everything that is bound or read as a text pass through here."""
    adapters = context.adapters
    assert adapters is not None
    for dumper in (_TextDumper, _BinaryTextDumper):
        adapters.register_dumper(str, dumper)
    for loader in (_TextLoader, _BinaryTextLoader):
        adapters.register_loader(_TEXT, loader)
