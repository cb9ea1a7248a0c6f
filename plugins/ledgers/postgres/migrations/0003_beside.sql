-- What stands beside the books: a rebuild leaves these tables as they are.

-- Who is behind a pseudonym. Everything else in the ledger has the pseudonym alone: deleting a row
-- here erases the person, and breaks no posting, no sealed root and no rebuild.
CREATE TABLE persons (
    pseudonym text COLLATE "C" PRIMARY KEY,
    person text COLLATE "C" NOT NULL UNIQUE,
    crc bigint NOT NULL            -- here and below: checksum of the other columns, in order
);

-- Observations whose payload stands in an archive: their row of the journal, and what tells a
-- duplicate of one from a conflict with it (the first half of its SHA-256).
CREATE TABLE archived (id bigint PRIMARY KEY, digest bytea NOT NULL, crc bigint NOT NULL);

-- What providers bill. Nothing here is ever changed: what is read again is the next version.
CREATE TABLE documents (
    sha256 text COLLATE "C" PRIMARY KEY,
    size bigint NOT NULL,
    packed bytea NOT NULL,         -- the bytes as they were imported, with zlib
    crc bigint NOT NULL
);

CREATE TABLE invoices (
    n bigint PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    document text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    provider text COLLATE "C" NOT NULL,
    account text COLLATE "C" NOT NULL,
    period text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    imported_at bigint NOT NULL,   -- ns UTC
    imported_by text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    is_provisional boolean NOT NULL,
    crc bigint NOT NULL,
    UNIQUE (period, source, provider, account, version)
);

CREATE TABLE invoice_lines (
    invoice bigint NOT NULL,
    number bigint NOT NULL,
    provider text COLLATE "C" NOT NULL,
    account text COLLATE "C" NOT NULL,
    project text COLLATE "C",
    day text COLLATE "C" NOT NULL,
    model text COLLATE "C",
    component text COLLATE "C" NOT NULL,
    tier text COLLATE "C",
    category text COLLATE "C" NOT NULL,
    requests bigint,
    quantity bigint,
    unit text COLLATE "C",
    amount numeric NOT NULL CHECK (scale(amount) = 0),  -- pico of the currency
    currency text COLLATE "C" NOT NULL,
    description text COLLATE "C" NOT NULL,
    is_provisional boolean NOT NULL,
    crc bigint NOT NULL,
    PRIMARY KEY (invoice, number)
);

CREATE TABLE reviews (
    n bigint PRIMARY KEY,
    variance text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('open', 'accepted', 'disputed', 'resolved')),
    reviewed_by text COLLATE "C" NOT NULL,
    note text COLLATE "C" NOT NULL,
    at bigint NOT NULL,            -- ns UTC
    crc bigint NOT NULL
);

CREATE TRIGGER documents_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON documents
FOR EACH STATEMENT
EXECUTE FUNCTION refuse_change('invoices are append-only: import the document again');
CREATE TRIGGER invoices_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON invoices
FOR EACH STATEMENT
EXECUTE FUNCTION refuse_change('invoices are append-only: import the document again');
CREATE TRIGGER invoice_lines_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON invoice_lines
FOR EACH STATEMENT
EXECUTE FUNCTION refuse_change('invoices are append-only: import the document again');
CREATE TRIGGER reviews_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON reviews
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('reviews are append-only: review again');

-- The lines are written before their invoice: once it stands, no line joins it.
CREATE FUNCTION refuse_late_line() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM invoices WHERE n = NEW.invoice) THEN
        RAISE EXCEPTION 'invoices are append-only: import the document again'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER invoice_lines_sealed BEFORE INSERT ON invoice_lines
FOR EACH ROW EXECUTE FUNCTION refuse_late_line();

ALTER TABLE documents ENABLE ALWAYS TRIGGER documents_append_only;
ALTER TABLE invoices ENABLE ALWAYS TRIGGER invoices_append_only;
ALTER TABLE invoice_lines ENABLE ALWAYS TRIGGER invoice_lines_append_only;
ALTER TABLE invoice_lines ENABLE ALWAYS TRIGGER invoice_lines_sealed;
ALTER TABLE reviews ENABLE ALWAYS TRIGGER reviews_append_only;
