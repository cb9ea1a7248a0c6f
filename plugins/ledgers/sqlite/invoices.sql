-- What providers bill, beside the books. Nothing here is ever changed: what is read again is the
-- next version. A rebuild of the books leaves these tables alone.

-- The bytes as they were imported, once each, packed with zlib.
CREATE TABLE documents (
    sha256 TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    packed BLOB NOT NULL,
    crc INTEGER NOT NULL           -- checksum of the other columns in order, as in every table here
) STRICT;

CREATE TABLE invoices (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    document TEXT NOT NULL,        -- sha256 of its bytes
    source TEXT NOT NULL,
    provider TEXT NOT NULL,
    account TEXT NOT NULL,
    period TEXT NOT NULL,
    version INTEGER NOT NULL,
    imported_at INTEGER NOT NULL,  -- ns UTC
    imported_by TEXT NOT NULL,
    currency TEXT NOT NULL,
    is_provisional INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    UNIQUE (period, source, provider, account, version)
) STRICT;

-- Amounts above 9.22 million overflow an integer of pico: whole units and the rest (0 or more)
-- apart, as in the lines of the books.
CREATE TABLE invoice_lines (
    invoice INTEGER NOT NULL,      -- invoices.n
    number INTEGER NOT NULL,
    provider TEXT NOT NULL,
    account TEXT NOT NULL,
    project TEXT,
    day TEXT NOT NULL,
    model TEXT,
    component TEXT NOT NULL,
    tier TEXT,
    category TEXT NOT NULL,
    requests INTEGER,
    quantity INTEGER,
    unit TEXT,
    whole INTEGER NOT NULL,
    pico INTEGER NOT NULL CHECK (pico BETWEEN 0 AND 999999999999),
    currency TEXT NOT NULL,
    description TEXT NOT NULL,
    is_provisional INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (invoice, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE reviews (
    n INTEGER PRIMARY KEY,
    variance TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'accepted', 'disputed', 'resolved')),
    reviewed_by TEXT NOT NULL,
    note TEXT NOT NULL,
    at INTEGER NOT NULL,           -- ns UTC
    crc INTEGER NOT NULL
) STRICT;

CREATE TRIGGER documents_no_update BEFORE UPDATE ON documents
BEGIN SELECT RAISE(ABORT, 'invoices are append-only: import the document again'); END;
CREATE TRIGGER documents_no_delete BEFORE DELETE ON documents
BEGIN SELECT RAISE(ABORT, 'invoices are append-only: import the document again'); END;
CREATE TRIGGER documents_no_replace BEFORE INSERT ON documents
WHEN EXISTS (SELECT 1 FROM documents WHERE sha256 = NEW.sha256)
BEGIN SELECT RAISE(ABORT, 'invoices are append-only: import the document again'); END;

CREATE TRIGGER invoices_no_update BEFORE UPDATE ON invoices
BEGIN SELECT RAISE(ABORT, 'invoices are append-only: import the document again'); END;
CREATE TRIGGER invoices_no_delete BEFORE DELETE ON invoices
BEGIN SELECT RAISE(ABORT, 'invoices are append-only: import the document again'); END;
CREATE TRIGGER invoices_no_replace BEFORE INSERT ON invoices
WHEN EXISTS (SELECT 1 FROM invoices WHERE n = NEW.n OR id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'invoices are append-only: import the document again'); END;

-- The lines are written before their invoice: once it stands, no line joins it.
CREATE TRIGGER invoice_lines_sealed BEFORE INSERT ON invoice_lines
WHEN EXISTS (SELECT 1 FROM invoices WHERE n = NEW.invoice)
BEGIN SELECT RAISE(ABORT, 'invoices are append-only: import the document again'); END;
CREATE TRIGGER invoice_lines_no_update BEFORE UPDATE ON invoice_lines
BEGIN SELECT RAISE(ABORT, 'invoices are append-only: import the document again'); END;
CREATE TRIGGER invoice_lines_no_delete BEFORE DELETE ON invoice_lines
BEGIN SELECT RAISE(ABORT, 'invoices are append-only: import the document again'); END;

CREATE TRIGGER reviews_no_update BEFORE UPDATE ON reviews
BEGIN SELECT RAISE(ABORT, 'reviews are append-only: review again'); END;
CREATE TRIGGER reviews_no_delete BEFORE DELETE ON reviews
BEGIN SELECT RAISE(ABORT, 'reviews are append-only: review again'); END;
CREATE TRIGGER reviews_no_replace BEFORE INSERT ON reviews
WHEN EXISTS (SELECT 1 FROM reviews WHERE n = NEW.n)
BEGIN SELECT RAISE(ABORT, 'reviews are append-only: review again'); END;
