"""Where a ledger is, and what may be said of it."""

from __future__ import annotations

import os
from copy import copy
from typing import Any
from urllib.parse import unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from costspan.core.ledger_errors import LedgerError
from costspan.core.ledger_urls import ENCODED, joined, pieces_of, secrets_of, shown_url, split_url
from costspan.plugins.ledgers.postgres.service import words_of_service

_SCHEMA = "costspan"
REBUILDING = "_rebuilding"
"""What the schema's name ends in where a rebuild fills its books."""
_NAME_BYTES_MAX = 63
"""PostgreSQL's NAMEDATALEN - 1: it cuts longer names off in silence."""
_CONNECT_SECONDS = "10"
_KEPT_ALIVE = {
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",  # ms
}
"""A server that vanished without a word is given up in a minute, as it gives us up."""


class Place:
    """Where a ledger is: what libpq is told, the schema, and what may be shown of it."""

    def __init__(self, url: str) -> None:
        self.shown = shown_url(url)
        parts = split_url(url)
        if parts is None:
            raise LedgerError(f"the ledger {self.shown} cannot be opened: {ENCODED}")
        pieces = pieces_of(parts.query)
        named = [unquote(value) for _, name, value in pieces if name == "schema"]
        self.schema = (named or [""])[-1] or _SCHEMA
        self._check_schema()
        self.path: tuple[str, ...] = (self.schema,)
        """The schemas where names are looked for, in order."""
        self._pieces = [each for each in pieces if each[1] != "schema"]
        said = "&".join(piece for piece, *_ in self._pieces)
        self.conninfo = joined(parts._replace(query=said))
        self._secrets = secrets_of(url)

    def _check_schema(self) -> None:
        """Names that the server would cut are those of other schemas, and of other leases."""
        at_most = _NAME_BYTES_MAX - len(REBUILDING)
        if len(self.schema.encode()) > at_most or self.schema.endswith(REBUILDING):
            raise LedgerError(
                f"the ledger {self.shown} cannot be opened: the name of a schema has at most"
                f" {at_most} bytes, and does not end in {REBUILDING}, where rebuilds are made"
            )

    def parameters(self) -> dict[str, Any]:
        """What libpq is told: what the URL says, and what nobody says otherwise.

        Raises:
            LedgerError: if libpq makes nothing of the URL; its own words could repeat a password.
        """
        try:
            said = conninfo_to_dict(self.conninfo)
            timeout = os.environ.get("PGCONNECT_TIMEOUT", _CONNECT_SECONDS)
            ours = {"connect_timeout": timeout, **_KEPT_ALIVE}
            for word in words_of_service(said):
                ours.pop(word, None)
            said = {"fallback_application_name": "costspan", **ours, **said}
            return {**said, "client_encoding": "UTF8"}
        except (psycopg.Error, UnicodeError):
            known = {each.keyword.decode() for each in psycopg.pq.Conninfo.get_defaults()}
            unknown = [name for _, name, _ in self._pieces if name not in known | {"ssl"}]
            why = f"libpq knows no parameter {', '.join(unknown)}" if unknown else ENCODED
        raise LedgerError(f"the ledger {self.shown} cannot be opened: {why}")

    def told(self, error: BaseException, connection: Any = None) -> str:
        """What an error says, on one line and without any password."""
        hidden = {*self._secrets, os.environ.get("PGPASSWORD", "")}
        if connection is not None and connection.password:
            hidden.add(connection.password.decode(errors="replace"))
        text = " ".join(str(error).split())
        for secret in sorted(hidden - {""}, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def beside(self, suffix: str) -> Place:
        """Another schema of the same database, that sees what this one has."""
        other = copy(self)
        other.schema = self.schema + suffix
        other.path = (other.schema, *self.path)
        return other
