"""What adapters are that are wrong on purpose: the manual one, with a meter that errs."""

from __future__ import annotations

from typing import ClassVar

from costspan.adapter import Attempt, new_attempt_id
from costspan.conformance.drivers.manual import Manual
from costspan.conformance.drivers.meter import Meter
from costspan.conformance.suite.driver import Reply


class Broken(Manual):
    """An adapter with a fault.

    Attributes:
        fault: The mistake, in words.
        caught_by: The scenario, and the mode, that was made for it.
        says: Words that the failure message must have, so that a reader finds the mistake.
    """

    fault: ClassVar[str]
    caught_by: ClassVar[str]
    says: ClassVar[str]


class EndOnly(Meter):
    """Writes nothing before the request leaves."""

    def start(self) -> Attempt:
        """An attempt that no record names yet."""
        return Attempt(None, (), None, {"layer": "manual", **self.intent()})


class NoFailures(EndOnly):
    """Writes nothing of a call that fails."""

    def end(self) -> Reply:
        """The first that is heard of the call."""
        self.attempt.attempt_id = new_attempt_id()
        return super().end()

    def fail(self, error: BaseException) -> None:
        """A failure is no event."""
