"""What `pytest --pyargs costspan.conformance` collects: every test on every ledger."""

from __future__ import annotations

import re

from costspan.conformance.ledgers.suite import LedgerConformance
from costspan.conformance.plugin import factories

for factory in factories():
    name = "Test_" + re.sub(r"\W", "_", factory.name)
    globals()[name] = type(name, (LedgerConformance,), {"factory_class": factory})
