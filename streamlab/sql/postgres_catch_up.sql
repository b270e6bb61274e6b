-- How a reader of PostgreSQL's changes takes a backlog out of its slot through SQL; see streamlab/cdc/catch_up.py.

-- name: session
-- One form of text, whatever the role's or the database's settings; room for a chunk before it goes to a file.
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
SET timezone = 'UTC';
SET extra_float_digits = 3;
SET bytea_output = 'hex';
SET work_mem = '64MB';

-- name: written
-- Where the log ends now: how far the backlog goes.
SELECT pg_current_wal_flush_lsn()::text;

-- name: peek
-- The messages of a chunk, which stay in the slot. In COPY's binary format a row is the number of columns (2 bytes) and
-- for each its length (4) and its bytes: with eight and three of them, the message begins at byte 25.
COPY (
    SELECT lsn, '\x000000'::bytea, data
    FROM pg_logical_slot_peek_binary_changes({slot}, {upto}, {rows}, VARIADIC {options})
) TO STDOUT (FORMAT binary);

-- name: advance
-- Behind what was acknowledged; not where the slot is there already.
SELECT pg_replication_slot_advance(slot_name, %(upto)s::pg_lsn)
FROM pg_replication_slots
WHERE slot_name = %(slot)s AND confirmed_flush_lsn < %(upto)s::pg_lsn;
