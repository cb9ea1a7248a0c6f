"""Sinks: every posting in order, at least once and the same to the byte, each at its own pace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sink_kept import Kept, as_another_process, post, reached

from costspan.core import hooks, sinks
from costspan.core.config import Config
from costspan.core.journal.files import SYSTEM
from costspan.core.settle.entries import Entry
from costspan.core.sinks import Standing


def test_a_posting_has_one_form() -> None:
    entry = Entry(7, "a1", "acmé", "direct", None, "2026-11", "2026-12", "2026-11-05", "gpt-4o",
                  "USD", -2_500_000_000, 10**19, 1)  # fmt: skip
    assert (
        entry.to_json()
        == (
            '{"bucket":"direct","charge":"10000000.000000000000","cost":"-0.002500000000",'
            '"currency":"USD","day":"2026-11-05","effective_period":"2026-11","event_id":"a1",'
            '"events":1,"model":"gpt-4o","number":7,"owner":"acmé","pool":null,'
            '"posted_period":"2026-12"}'
        ).encode()
    )
    with pytest.raises(AttributeError):
        entry.number = 8  # type: ignore[misc]  # this is what must not work


def test_every_posting_once_and_in_order(settings: Config, plug: Callable[..., None]) -> None:
    sink = Kept()
    plug(sink=sink)
    post(settings, *range(1203))
    sinks.deliver(settings, wait=True)
    assert sink.numbers == list(range(1, 1204))
    assert [each.count(b"\n") for each in sink.batches] == [500, 500, 203]
    assert (reached(settings)["sink"].taken, reached(settings)["sink"].waiting) == (1203, 0)
    sinks.deliver(settings, wait=True)
    as_another_process()
    sinks.deliver(settings, wait=True)
    assert sink.tries == 3


def test_nothing_to_deliver(settings: Config, plug: Callable[..., None]) -> None:
    sink = Kept()
    plug(sink=sink)
    sinks.deliver(settings, wait=True)
    assert not Path(settings.ledger).exists()
    assert sink.tries == 0


def test_a_batch_that_was_not_taken_comes_again_to_the_byte(
    settings: Config, plug: Callable[..., None]
) -> None:
    """Though more was posted meanwhile, and though it is another process that tries again."""
    sink = Kept(fails=1)
    plug(sink=sink)
    post(settings, 1, 2)
    sinks.deliver(settings, wait=True)
    assert reached(settings)["sink"].taken == 0
    post(settings, 3, 4)
    as_another_process()
    sinks.deliver(settings, wait=True)
    assert sink.batches[0] == sink.batches[1]
    assert sink.numbers == [1, 2, 1, 2, 3, 4]
    assert reached(settings)["sink"].taken == 4


class Clock:
    """The operating system, but with a clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def __getattr__(self, name: str) -> Any:
        return getattr(SYSTEM, name)

    def monotonic_ns(self) -> int:
        return self.now_ns


def test_a_sink_that_fails_is_tried_ever_less_often(
    settings: Config, plug: Callable[..., None]
) -> None:
    sink, clock = Kept(fails=12), Clock()
    plug(sink=sink)
    post(settings, 1)
    sinks.deliver(settings, wait=True, files=clock)
    waits = [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    for tries, seconds in enumerate(waits, start=1):
        clock.now_ns += seconds * 10**9 - 1
        sinks.deliver(settings, wait=True, files=clock)
        assert sink.tries == tries, "too early"
        clock.now_ns += 1
        sinks.deliver(settings, wait=True, files=clock)
        assert sink.tries == tries + 1
    clock.now_ns += 300 * 10**9
    sinks.deliver(settings, wait=True, files=clock)
    assert reached(settings)["sink"].taken == 1
    # It went well: the next failure is the first again.
    assert reached(settings)["sink"].last_failure is None


def test_a_sink_that_is_gone_is_remembered(settings: Config, plug: Callable[..., None]) -> None:
    plug(gone=Kept())
    post(settings, 1)
    sinks.deliver(settings, wait=True)
    hooks.plugins().unregister(name="gone")
    try:
        post(settings, 2)
        assert reached(settings) == {
            "gone": Standing(
                sink="gone", is_installed=False, taken=1, waiting=1, waits_for_more=False,
                last_failure=None,
            )
        }  # fmt: skip
    finally:
        hooks.plugins().register(ModuleType("gone"), "gone")
