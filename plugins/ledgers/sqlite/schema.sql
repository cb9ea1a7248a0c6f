-- The books of costspan in SQLite, schema version 1.
-- journal, controls, conflicts and postings are only ever added to. events, names, links,
-- directory, problems and rollup are derived from them and can be rebuilt.

CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('schema_version', '1');

CREATE TABLE writers (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;

-- One observation a row; (writer, seq) is its oid. `attempt` finds the others of its attempt.
CREATE TABLE journal (
    id INTEGER PRIMARY KEY,
    writer INTEGER NOT NULL REFERENCES writers,
    seq INTEGER NOT NULL,
    attempt TEXT,
    payload BLOB NOT NULL,
    UNIQUE (writer, seq)
) STRICT;
CREATE INDEX journal_attempt ON journal (attempt) WHERE attempt IS NOT NULL;

-- Another payload under an oid that was taken: the one with the smaller hash is in the journal.
CREATE TABLE conflicts (
    writer INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (writer, seq, sha256)
) STRICT, WITHOUT ROWID;

CREATE TABLE controls (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;

-- 'o:' operation id, 'r:' response id -> attempt id, or tab + 'writer:seq' of one that names none;
-- 'R:' response id -> only observations whose event is found by their response id.
CREATE TABLE links (
    key TEXT NOT NULL,
    target TEXT NOT NULL,
    PRIMARY KEY (key, target)
) STRICT, WITHOUT ROWID;

CREATE TABLE directory (
    session TEXT NOT NULL,
    tenant TEXT NOT NULL,
    source TEXT NOT NULL,          -- operator | evidence
    recorded_at INTEGER NOT NULL,
    witnesses INTEGER NOT NULL,    -- how many observations say so
    PRIMARY KEY (session, source, tenant)
) STRICT, WITHOUT ROWID;

CREATE TABLE rule_sets (sha256 TEXT PRIMARY KEY, content BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE price_books (
    sha256 TEXT PRIMARY KEY, name TEXT NOT NULL, version TEXT, content BLOB NOT NULL
) STRICT;

CREATE TABLE events (
    id TEXT PRIMARY KEY,
    is_attempt INTEGER NOT NULL,
    status TEXT NOT NULL,          -- open | posted | unpriced | unmeasured | not_money
    awaits TEXT,                   -- call | batch: what an open event waits for
    is_swept INTEGER NOT NULL,     -- 1: it started, nobody saw its end, and it was given up
    tenant TEXT,
    session TEXT,
    parent TEXT,
    kind TEXT,
    started_at INTEGER,            -- or the best that is known of when it was
    request_id TEXT,
    trace_id TEXT,
    content BLOB NOT NULL
) STRICT;
CREATE INDEX events_parent ON events (parent) WHERE parent IS NOT NULL;
CREATE INDEX events_session ON events (session) WHERE session IS NOT NULL;
CREATE INDEX events_request ON events (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX events_trace ON events (trace_id) WHERE trace_id IS NOT NULL;
CREATE INDEX events_status ON events (status, awaits, coalesce(started_at, 0))
    WHERE status != 'posted';
CREATE INDEX events_swept ON events (id) WHERE is_swept;

-- Names a parent may use beside the attempt id: 1 operation id, 2 oid, 3 span id.
CREATE TABLE names (
    name TEXT NOT NULL,
    rank INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    PRIMARY KEY (name, rank, event_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE postings (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    bucket TEXT NOT NULL,
    pool TEXT,
    effective_period TEXT NOT NULL,
    posted_period TEXT NOT NULL,
    day TEXT NOT NULL,
    model TEXT NOT NULL,
    currency TEXT NOT NULL,
    cost INTEGER NOT NULL,         -- pico of the currency
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

-- How far each sink has come: it takes postings at least once, in the order of their numbers.
CREATE TABLE cursors (sink TEXT PRIMARY KEY, posting INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- Amounts above 9.22 million USD overflow an integer of pico: whole USD and the rest apart.
CREATE TABLE rollup (
    owner TEXT NOT NULL,
    effective_period TEXT NOT NULL,
    bucket TEXT NOT NULL,
    pool TEXT NOT NULL,
    day TEXT NOT NULL,
    model TEXT NOT NULL,
    posted_period TEXT NOT NULL,
    currency TEXT NOT NULL,
    cost_usd INTEGER NOT NULL,
    cost_pico INTEGER NOT NULL,
    charge_usd INTEGER NOT NULL,
    charge_pico INTEGER NOT NULL,
    events INTEGER NOT NULL,
    PRIMARY KEY (owner, effective_period, bucket, pool, day, model, posted_period, currency)
) STRICT, WITHOUT ROWID;

-- What posts nothing and why, and conflicting payloads.
CREATE TABLE problems (
    kind TEXT NOT NULL,
    oid TEXT NOT NULL,
    event_id TEXT NOT NULL,
    PRIMARY KEY (oid, kind, event_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE refusals (
    writer TEXT NOT NULL,
    reason TEXT NOT NULL,
    refused INTEGER NOT NULL,
    PRIMARY KEY (writer, reason)
) STRICT, WITHOUT ROWID;
