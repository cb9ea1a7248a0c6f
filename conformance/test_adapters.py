"""What `pytest --pyargs costspan.conformance` collects: every scenario on every adapter."""

from __future__ import annotations

from costspan.conformance.plugin import drivers
from costspan.conformance.suite.checks import AdapterConformance

globals().update(
    (
        f"Test_{driver.name.replace('-', '_')}",
        type("Test", (AdapterConformance,), {"driver": driver}),
    )
    for driver in drivers()
)
