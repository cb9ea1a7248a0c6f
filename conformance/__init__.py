"""The shared suite: a provider that knows the truth, scenarios, and drivers that play them.

    pytest --pyargs costspan.conformance --adapter your.module:YourDriver

or subclass `AdapterConformance`. A driver subclasses `costspan.conformance.suite.driver.Driver`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costspan.conformance.suite.checks import AdapterConformance

__all__ = ["AdapterConformance"]


def __getattr__(name: str) -> Any:
    if name == "AdapterConformance":  # Needs pytest, which the demo does without.
        from costspan.conformance.suite.checks import AdapterConformance

        return AdapterConformance
    raise AttributeError(f"module 'costspan.conformance' has no attribute {name!r}")
