"""What a host raised, in words: the error, its place, and the connection that was lost below it."""

from __future__ import annotations

from pathlib import Path
from traceback import extract_tb

_BROKEN = {"ConnectionError", "NetworkError", "ProtocolError", "ClientConnectionError"}
"""What Python, httpx with httpcore, and aiohttp call a connection that broke."""
_PLAYER = str(Path(__file__).with_name("player.py"))


def lost_connection(error: BaseException | None) -> str | None:
    """What a client of HTTP, below the host, says of a connection that broke; not of a timeout."""
    while error is not None:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if kinds & _BROKEN:
            return f"{type(error).__module__}.{type(error).__name__}: {error}"
        error = error.__cause__ or error.__context__
    return None


def told(error: BaseException) -> str:
    """An error in words, and the driver's line that it came through."""
    here = [each for each in extract_tb(error.__traceback__) if each.filename != _PLAYER]
    place = f" ({Path(here[0].filename).name}:{here[0].lineno})" if here else ""
    return f"{type(error).__name__}: {error}{place}"
