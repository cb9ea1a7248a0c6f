"""The shared suites: of adapters on a provider that knows the truth, and of ledgers.

    pytest --pyargs costspan.conformance --adapter your.module:YourDriver
    pytest --pyargs costspan.conformance --ledger your.module:YourLedgers

or subclass `AdapterConformance`, `LedgerConformance`. A driver subclasses
`costspan.conformance.suite.driver.Driver`; what makes ledgers subclasses
`costspan.conformance.ledgers.factory.LedgerFactory`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costspan.conformance.ledgers.suite import LedgerConformance
    from costspan.conformance.suite.checks import AdapterConformance

__all__ = ["AdapterConformance", "LedgerConformance"]


def __getattr__(name: str) -> Any:
    # These need pytest, which the demo does without.
    if name == "AdapterConformance":
        from costspan.conformance.suite.checks import AdapterConformance

        return AdapterConformance
    if name == "LedgerConformance":
        from costspan.conformance.ledgers.suite import LedgerConformance

        return LedgerConformance
    raise AttributeError(f"module 'costspan.conformance' has no attribute {name!r}")
