"""Ledgers: stores of the books. Each implements the protocols of `costspan.core.settle.ledger`."""
