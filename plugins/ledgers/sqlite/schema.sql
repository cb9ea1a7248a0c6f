-- The books of costspan in SQLite, schema version 3.
-- journal, controls, conflicts and postings are only ever added to. events, keys, waiting, lines,
-- directory, assignments, restatements, problems and rulings follow from them and can be rebuilt.

CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('schema_version', '3');
-- How often the books were rebuilt: lines are numbered anew each time, and postings with gaps. Books
-- that were copied here from another ledger count as rebuilt once.
INSERT INTO meta VALUES ('rebuilt', '0');

-- A writer's records 0 to 2**32 - 1 are its epoch 0, and so on; an oid that no writer numbered is
-- a writer of its own, epoch -1. `greatest` and `kept` say whether numbers are missing.
CREATE TABLE writers (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    greatest INTEGER NOT NULL,
    kept INTEGER NOT NULL,
    UNIQUE (name, epoch)
) STRICT;

-- One observation a row. Its id is its oid: the writer, then 32 bits of its number. `crc` is over
-- oid and payload.
CREATE TABLE journal (id INTEGER PRIMARY KEY, payload BLOB NOT NULL, crc INTEGER NOT NULL) STRICT;

-- Another payload under an oid that was taken: the one with the smaller hash is in the journal.
CREATE TABLE conflicts (
    observation INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    payload BLOB NOT NULL,
    crc INTEGER NOT NULL,          -- as everywhere but above: checksum() of the other columns
    PRIMARY KEY (observation, sha256)
) STRICT, WITHOUT ROWID;

CREATE TABLE controls (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE INDEX controls_kind ON controls (kind);

CREATE TABLE directory (
    session TEXT NOT NULL,
    tenant TEXT NOT NULL,
    source TEXT NOT NULL,          -- operator | evidence
    recorded_at INTEGER NOT NULL,
    witnesses INTEGER NOT NULL,    -- how many observations say so
    PRIMARY KEY (session, source, tenant)
) STRICT, WITHOUT ROWID;

CREATE TABLE assignments (
    event TEXT NOT NULL,
    recorded_at INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    by TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (event, recorded_at, tenant, by, reason)
) STRICT, WITHOUT ROWID;

-- Name of an event, or a period -> the restatements of it.
CREATE TABLE restatements (
    name TEXT NOT NULL,
    control INTEGER NOT NULL,
    PRIMARY KEY (name, control)
) STRICT, WITHOUT ROWID;

-- Whom each free posting is about.
CREATE TABLE free_owners (
    owner TEXT NOT NULL,
    control INTEGER NOT NULL,
    PRIMARY KEY (owner, control)
) STRICT, WITHOUT ROWID;

CREATE TABLE rule_sets (sha256 TEXT PRIMARY KEY, content BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE price_books (
    sha256 TEXT PRIMARY KEY, name TEXT NOT NULL, version TEXT, content BLOB NOT NULL
) STRICT;

CREATE TABLE charge_books (sha256 TEXT PRIMARY KEY, content BLOB NOT NULL) STRICT, WITHOUT ROWID;

-- What the tables of rules say of one combination of features: the same for thousands of events.
-- Its id is the first half of the digest that is its key.
CREATE TABLE rulings (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, content BLOB NOT NULL)
STRICT;

CREATE TABLE events (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,          -- open | posted | split | unpriced | unmeasured | not_money
    about TEXT,                    -- open: what it waits for; of unknown cost: "PERIOD OWNER"
    is_swept INTEGER NOT NULL,     -- 1: it started, nobody saw its end, and it was given up
    session TEXT,
    parent TEXT,
    started_at INTEGER,            -- or the best that is known of when it was
    request_id TEXT,
    trace_id TEXT,
    content BLOB NOT NULL,
    crc INTEGER NOT NULL           -- of the content, which says everything else
) STRICT;
CREATE INDEX events_parent ON events (parent) WHERE parent IS NOT NULL;
CREATE INDEX events_session ON events (session) WHERE session IS NOT NULL;
CREATE INDEX events_request ON events (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX events_trace ON events (trace_id) WHERE trace_id IS NOT NULL;
CREATE INDEX events_status ON events (status, about, coalesce(started_at, 0))
    WHERE status NOT IN ('posted', 'not_money');
CREATE INDEX events_swept ON events (n) WHERE is_swept;

-- 63 bits of the digest of each key an event is found by (core/settle/keys.py) -> its number. What
-- two keys share, and what an event was once found by, only costs a look.
CREATE TABLE keys (key INTEGER NOT NULL, event INTEGER NOT NULL, PRIMARY KEY (key, event))
STRICT, WITHOUT ROWID;

-- The same for observations that speak of no event.
CREATE TABLE waiting (
    key INTEGER NOT NULL, observation INTEGER NOT NULL, PRIMARY KEY (key, observation)
) STRICT, WITHOUT ROWID;

-- The lines of the books, and what the postings on each add up to. Amounts above 9.22 million USD
-- overflow an integer of pico: whole USD and the rest apart.
CREATE TABLE lines (
    id INTEGER PRIMARY KEY,
    owner TEXT NOT NULL,
    effective_period TEXT NOT NULL,
    bucket TEXT NOT NULL,
    pool TEXT NOT NULL,            -- '' where there is none
    day TEXT NOT NULL,
    model TEXT NOT NULL,
    posted_period TEXT NOT NULL,
    currency TEXT NOT NULL,
    cost_usd INTEGER NOT NULL,
    cost_pico INTEGER NOT NULL,
    charge_usd INTEGER NOT NULL,
    charge_pico INTEGER NOT NULL,
    events INTEGER NOT NULL,
    crc INTEGER NOT NULL,          -- of what names the line, from owner to currency
    UNIQUE (owner, posted_period, effective_period, bucket, pool, day, model, currency)
) STRICT;
CREATE INDEX lines_period ON lines (effective_period);

CREATE TRIGGER lines_no_rename
BEFORE UPDATE OF id, owner, effective_period, bucket, pool, day, model, posted_period, currency
ON lines
BEGIN SELECT RAISE(ABORT, 'the lines of the books keep their names: post a correction'); END;

CREATE TABLE postings (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL,
    line INTEGER NOT NULL,
    cost INTEGER NOT NULL,         -- pico of the line's currency
    charge INTEGER NOT NULL,
    events INTEGER NOT NULL        -- +1 the event comes to stand on this line, -1 it leaves it
) STRICT;
CREATE INDEX postings_event ON postings (event_id);

CREATE TRIGGER postings_no_update BEFORE UPDATE ON postings
BEGIN SELECT RAISE(ABORT, 'postings are append-only: post a correction'); END;
CREATE TRIGGER postings_no_delete BEFORE DELETE ON postings
BEGIN SELECT RAISE(ABORT, 'postings are append-only: post a correction'); END;
-- INSERT OR REPLACE deletes without firing the trigger above (unless recursive_triggers is on).
CREATE TRIGGER postings_no_replace BEFORE INSERT ON postings
WHEN NEW.id IS NOT NULL AND EXISTS (SELECT 1 FROM postings WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'postings are append-only: post a correction'); END;

-- Events of copied postings that the rebuild has not come to yet.
CREATE TABLE copied (event_id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;

-- How far each sink has come: it takes postings at least once, in the order of their numbers.
CREATE TABLE cursors (
    sink TEXT PRIMARY KEY,
    posting INTEGER NOT NULL,
    crc INTEGER NOT NULL           -- checksum() of the other columns
) STRICT, WITHOUT ROWID;

-- What posts nothing and why, and conflicting payloads.
CREATE TABLE problems (
    kind TEXT NOT NULL,
    oid TEXT NOT NULL,
    event_id TEXT NOT NULL,
    PRIMARY KEY (oid, kind, event_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX problems_event ON problems (event_id) WHERE event_id != '';

-- What each writer counted so far, by kind of record (Refusals, Counts).
CREATE TABLE counted (
    writer TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    times INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (writer, kind, name)
) STRICT, WITHOUT ROWID;
