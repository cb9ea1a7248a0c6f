"""Everything replaceable: ledgers and price books, found by entry point as a stranger's are."""
