"""One-line adoption: `costspan.install("litellm")`, `costspan.install("langchain")`."""

from __future__ import annotations

from importlib import import_module

_HOSTS = {"litellm": "costspan.adapters.litellm", "langchain": "costspan.adapters.langchain"}


def install(host: str) -> object:
    """Register costspan with a host for the whole process; returns the callback or handler.

    Doing it twice is doing it once. The host's other callbacks are left alone.

    Raises:
        ValueError: for a host nobody ships an adapter for.
        ImportError: if the host's library is not installed (the text names the extra).
    """
    if host not in _HOSTS:
        known = ", ".join(sorted(_HOSTS))
        raise ValueError(f"costspan.install knows {known}, not {host!r}")
    try:
        adapter = import_module(_HOSTS[host])
    except ModuleNotFoundError as error:
        hint = f"costspan.install({host!r}) needs {error.name}: pip install 'costspan[{host}]'"
        raise ImportError(hint) from error
    installed: object = adapter.install()
    return installed
