"""The drivers that costspan ships, one host a file."""
