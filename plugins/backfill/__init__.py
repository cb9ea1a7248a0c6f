"""Records that other systems kept, row by row, as observations: LiteLLM, Langfuse, FOCUS.

A converter is pure: it takes one row (a mapping) and returns a `Claim`, or says why the row is
rejected or left out. `sources` reads the rows of files, `postgres` those of LiteLLM's own table.
"""
