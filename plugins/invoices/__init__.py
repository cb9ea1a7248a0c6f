"""Importers of what providers bill: a module a source, each found by entry point."""
