"""The shared suite of ledgers: whatever keeps the books, they are the same books.

    pytest --pyargs costspan.conformance --ledger your.module:YourLedgers

or subclass `costspan.conformance.LedgerConformance`. Say where a new ledger may be made by
subclassing `costspan.conformance.ledgers.factory.LedgerFactory`.
"""
