"""What `pytest --pyargs costspan.conformance` collects: every scenario on every adapter."""

from __future__ import annotations

from costspan.conformance.plugin import drivers
from costspan.conformance.suite.checks import AdapterConformance

for driver in drivers():
    name = f"Test_{driver.name.replace('-', '_')}"
    globals()[name] = type(name, (AdapterConformance,), {"driver": driver})
