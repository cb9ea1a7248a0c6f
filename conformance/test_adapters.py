"""What `pytest --pyargs costspan.conformance` collects: every scenario on every adapter.

What each play recorded is settled in every ledger of the run.
"""

from __future__ import annotations

import re

from costspan.conformance.ledgers.sqlite import SqliteLedgers
from costspan.conformance.plugin import drivers, factories
from costspan.conformance.suite.checks import AdapterConformance

# Whose books are judged is SQLite's: the others are held against it.
ledgers = tuple(each for each in factories() if each is not SqliteLedgers)
for driver in drivers():
    name = "Test_" + re.sub(r"\W", "_", driver.name)
    globals()[name] = type(name, (AdapterConformance,), {"driver": driver, "ledgers": ledgers})
