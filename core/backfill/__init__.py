"""What a host wrote down before costspan was there: one claim a row, and how it compares."""
