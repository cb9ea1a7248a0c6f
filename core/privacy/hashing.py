"""Hashes of prompts: whether two calls of one tenant asked the same, and nothing else.

A hash is HMAC-SHA256 under a key of the tenant's own, derived from the operator's: so two tenants
that ask the same have different hashes, and who has a hash and a guess but no key learns nothing.
Nothing is hashed until a key is configured (the setting `prompt_keys`), and no prompt is kept.

The key file has one `KEYID:SECRET` a line (`#` begins a comment); the first is hashed with, those
after it are former ones that only recognise. A hash is written `KEYID:` and 64 hex digits.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

_LINE = re.compile(r"(?P<id>[A-Za-z0-9._-]{1,32}):(?P<secret>[\x21-\x7e]{32,512})")
_DERIVED_MAX = 10_000
_ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant"}
"""LangChain's names of the roles that providers have others for."""


class PromptKeyError(ValueError):
    """A key file that cannot be used; the text says which line, and never shows a secret."""


class PromptKeys:
    """The operator's keys, the current one first."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise PromptKeyError("no key in it: write KEYID:SECRET")
        self._keys = dict(keys)
        self.current = next(iter(self._keys))
        self._derived: dict[tuple[str, str], bytes] = {}

    @classmethod
    def read(cls, path: Path) -> PromptKeys:
        """The keys of a file.

        Raises:
            PromptKeyError: if a line is no key, or an id comes twice.
            OSError: if it cannot be read.
        """
        keys: dict[str, bytes] = {}
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            found = _LINE.fullmatch(text)
            if found is None or found["id"] in keys:
                raise PromptKeyError(
                    f"{path}, line {number}: write KEYID:SECRET, each id once, with a secret of at"
                    " least 32 characters (openssl rand -hex 32)"
                )
            keys[found["id"]] = found["secret"].encode()
        try:
            return cls(keys)
        except PromptKeyError as error:
            raise PromptKeyError(f"{path}: {error}") from None

    def hash(self, prompt: object, tenant: str) -> str:
        """The hash of what was asked (messages, or a text) on a tenant's behalf."""
        return self._hash(self.current, prompt, tenant)

    def matches(self, prompt: object, tenant: str, prompt_hash: str) -> bool | None:
        """Whether this was asked; None if the hash is of a key that is not here any more."""
        key_id = prompt_hash.partition(":")[0]
        if key_id not in self._keys:
            return None
        return hmac.compare_digest(self._hash(key_id, prompt, tenant), prompt_hash)

    def _hash(self, key_id: str, prompt: object, tenant: str) -> str:
        digest = hmac.digest(self._of_tenant(key_id, tenant), canonical_prompt(prompt), "sha256")
        return f"{key_id}:{digest.hex()}"

    def _of_tenant(self, key_id: str, tenant: str) -> bytes:
        """The tenant's own key: HMAC-SHA256 of its id, under the operator's."""
        known = self._derived.get((key_id, tenant))
        if known is None:
            if len(self._derived) >= _DERIVED_MAX:
                self._derived.clear()
            name = "costspan/prompt/" + tenant
            known = hmac.digest(self._keys[key_id], name.encode("utf-8", "surrogatepass"), "sha256")
            self._derived[key_id, tenant] = known
        return known


_read: dict[Path, PromptKeys] = {}


def keys_of(path: Path) -> PromptKeys:
    """The keys of a file, read once in a process.

    Raises:
        PromptKeyError: as `PromptKeys.read`.
        OSError: as `PromptKeys.read`.
    """
    known = _read.get(path)
    if known is None:
        known = _read[path] = PromptKeys.read(path)
    return known


def canonical_prompt(prompt: object) -> bytes:
    """What is hashed: roles and contents as JSON, the same whichever host the prompt came through.

    Raises:
        TypeError: if it has no messages and is no text.
    """
    if isinstance(prompt, str):
        return _encode([["user", prompt]])
    if not isinstance(prompt, Sequence):
        raise TypeError(f"a prompt that is a {type(prompt).__name__}")
    return _encode([_said(each) for each in cast("Sequence[object]", prompt)])


def _said(message: object) -> list[Any]:
    if isinstance(message, str):
        return ["user", message]
    if isinstance(message, Mapping):
        fields = cast("Mapping[str, Any]", message)
        role, content = fields.get("role"), fields.get("content")
    else:
        role, content = getattr(message, "type", None), getattr(message, "content", None)
    return [_ROLES.get(str(role), role), _content(content)]


def _content(content: object) -> object:
    """One block of text is the same as that text."""
    if isinstance(content, list):
        blocks = cast("list[object]", content)
        if len(blocks) == 1 and isinstance(blocks[0], Mapping):
            block = cast("Mapping[str, object]", blocks[0])
            if set(block) == {"type", "text"}:
                return block["text"]
        return blocks
    return content


def _unknown(value: object) -> object:
    """What JSON has no form for: its type; never what it shows, which may be an address."""
    return type(value).__name__


_encode = msgspec.json.Encoder(order="sorted", enc_hook=_unknown).encode
