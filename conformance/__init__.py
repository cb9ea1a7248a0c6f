"""The shared suite that every adapter and ledger must pass, ours and strangers'."""
