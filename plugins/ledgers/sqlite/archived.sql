-- Observations whose payload stands in an archive: their row of the journal, and what tells a
-- duplicate of one from a conflict with it (the first half of its SHA-256).
CREATE TABLE archived (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL,
    crc INTEGER NOT NULL           -- checksum of the other columns in order
) STRICT;
