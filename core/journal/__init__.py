"""The journal: everything that changes the books is a record in it. Only `spool` writes files."""
