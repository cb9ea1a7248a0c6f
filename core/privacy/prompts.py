"""Hashing prompts in this process: off until a key is configured, and never in the host's way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from costspan.core import counters
from costspan.core.imports import load

if TYPE_CHECKING:
    from costspan.core.privacy.hashing import PromptKeys

_path: Path | None = None
_is_told = False
"""Whether the settings of this process have said which keys, or that there are none."""


def use(path: Path | None) -> None:
    """Hash prompts with the keys of this file from here on; None for no hashes."""
    global _path, _is_told
    _path, _is_told = path, True


def keys_of(path: Path) -> PromptKeys:
    """The keys of a file.

    Raises:
        PromptKeyError: if it holds none that can be used.
        OSError: if it cannot be read.
    """
    keys: PromptKeys = load("costspan.core.privacy.hashing").keys_of(path)
    return keys


def hash_of(prompt: object, tenant: str | None) -> str | None:
    """The hash of a prompt, which is not kept; None unless keys are configured. Never raises.

    Without a tenant there is no key: it is counted, and there is no hash.
    """
    if _is_told and _path is None:
        return None
    try:
        if not _is_told:
            _ask()
        if _path is None:
            return None
        if tenant is None:
            counters.count("prompt_unhashed:no_tenant")
            return None
        return keys_of(_path).hash(prompt, tenant)
    except Exception as error:
        counters.count(f"prompt_unhashed:{type(error).__name__}")
        return None


def _ask() -> None:
    """The settings are read at first use: by the first prompt, if nothing was recorded before."""
    global _is_told
    _is_told = True  # settings that cannot be used say nothing, and are not read for every prompt
    load("costspan.core.runtime").settings()
