"""The secrets that services of ours sign for one another with, and whom they believe."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["Keys"]

SECRET_BYTES_MIN = 32
"""A key for HMAC-SHA256 is at least as long as its hash (RFC 7518, section 3.2)."""
_SALT = b"costspan.carrier.v1"
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")
_NAME_CHARS_MAX = 128


@dataclass(frozen=True, eq=False)
class Keys:
    """Who signs, with which key, and whose carriers are believed.

    Rotate in three steps: add the new secret everywhere, make it `current`, then remove the old.

    Args:
        secrets: Key id -> secret (at least 32 bytes). Never shown, not by `repr` either.
        current: The id of the key that signs. The others only verify.
        issuer: Who signs here: the name of this service, or of the whole installation.
        audiences: The names this service answers to: a carrier made for another is refused.
        issuers: Whose carriers are believed; only this issuer's own unless given.

    Raises:
        ImportError: if itsdangerous is not installed.
        ValueError: for a key id, secret or name that cannot be used.
    """

    secrets: Mapping[str, bytes | str] = field(repr=False)
    current: str
    issuer: str
    audiences: Collection[str] = ()
    issuers: Collection[str] = ()

    def __post_init__(self) -> None:
        _itsdangerous()  # the import fails where it is configured, not in the middle of a call
        secrets = {key_id: _secret(key_id, secret) for key_id, secret in self.secrets.items()}
        if self.current not in secrets:
            raise ValueError(f"there is no secret for the current key id {self.current!r}")
        issuers = _names("issuers", self.issuers) or _names("issuer", (self.issuer,))
        _names("issuer", (self.issuer,))
        object.__setattr__(self, "secrets", MappingProxyType(secrets))
        object.__setattr__(self, "audiences", _names("audiences", self.audiences))
        object.__setattr__(self, "issuers", issuers)

    def signature(self, key_id: str, text: str) -> str:
        """The HMAC-SHA256 of `text` under one of the keys, in URL-safe base64.

        Raises:
            KeyError: if there is no such key.
        """
        signer = _itsdangerous().Signer(
            self.secrets[key_id], salt=_SALT, key_derivation="hmac", digest_method=hashlib.sha256
        )
        return str(signer.get_signature(text), "ascii")


def _itsdangerous() -> Any:
    try:
        import itsdangerous
    except ImportError as error:
        raise ImportError(
            "signed contexts need itsdangerous: pip install 'costspan[signing]'"
        ) from error
    return itsdangerous


def _secret(key_id: str, secret: bytes | str) -> bytes:
    if not _KEY_ID.fullmatch(key_id):
        raise ValueError(f"a key id is 1 to 32 letters, digits, - or _: {key_id!r}")
    raw = secret.encode() if isinstance(secret, str) else bytes(secret)
    if len(raw) < SECRET_BYTES_MIN:
        raise ValueError(f"the secret of key {key_id!r} is shorter than {SECRET_BYTES_MIN} bytes")
    return raw


def _names(what: str, names: Collection[str]) -> frozenset[str]:
    """A set of names; a text alone is one name, not its letters."""
    found = frozenset([names] if isinstance(names, str) else names)
    for name in found:
        if not name or len(name) > _NAME_CHARS_MAX or not name.isprintable():
            raise ValueError(f"{what}: not a name: {name!r}")
    return found
