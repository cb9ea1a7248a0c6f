-- Who is behind a pseudonym. Everything else in the ledger has the pseudonym alone: deleting a row
-- here erases the person, and breaks no posting, no sealed root and no rebuild.
CREATE TABLE persons (
    pseudonym TEXT PRIMARY KEY,
    user TEXT NOT NULL UNIQUE,
    crc INTEGER NOT NULL           -- checksum of the other columns in order
) STRICT, WITHOUT ROWID;
