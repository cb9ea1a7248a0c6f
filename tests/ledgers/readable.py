"""Which of several descriptors have something to read, however high their numbers are."""

from __future__ import annotations

import selectors
from collections.abc import Iterable
from typing import TypeVar, cast

File = TypeVar("File")


def readable(files: Iterable[File], seconds: float | None = None) -> list[File]:
    """Wait until one of them has, or is at its end; none if that takes longer.

    `select` would know none from 1024 on, which a long run of tests comes to.
    """
    with selectors.DefaultSelector() as selector:
        for each in files:
            selector.register(cast("int", each), selectors.EVENT_READ)
        return [cast("File", key.fileobj) for key, _ in selector.select(seconds)]
