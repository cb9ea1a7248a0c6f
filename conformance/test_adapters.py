"""What `pytest --pyargs costspan.conformance` collects: every scenario on every adapter."""

from __future__ import annotations

import re

from costspan.conformance.plugin import drivers
from costspan.conformance.suite.checks import AdapterConformance

for driver in drivers():
    name = "Test_" + re.sub(r"\W", "_", driver.name)
    globals()[name] = type(name, (AdapterConformance,), {"driver": driver})
