-- What has to hold on a PostgreSQL before its changes can be read, and the objects that reading needs.
--
-- Any role may run the questions. Columns that a later version has are read through to_jsonb, so that the same text
-- runs on all of them.

-- name: server
-- Version, settings, and how many places for slots and senders are taken; what the role may do.
SELECT current_setting('server_version_num')::int,
       current_setting('wal_level'),
       current_setting('max_replication_slots')::int,
       (SELECT count(*) FROM pg_replication_slots),
       current_setting('max_wal_senders')::int,
       (SELECT count(*) FROM pg_stat_replication),
       (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
       pg_is_in_recovery(),
       current_user::text,
       (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user),
       has_database_privilege(current_database(), 'CREATE'),
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text,
       current_database()::text;

-- name: publication
-- What it publishes.
SELECT puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot
FROM pg_publication WHERE pubname = %s;

-- name: published
-- Its tables, partitions in place of their parents unless it publishes through the root. A list of columns or a filter
-- of rows exists since version 15.
SELECT t.schemaname::text, t.tablename::text, to_jsonb(t) -> 'attnames', to_jsonb(t) ->> 'rowfilter'
FROM pg_publication_tables t WHERE t.pubname = %s
ORDER BY 1, 2;

-- name: leaves
-- The tables that hold the rows of the tables named: partitions for a partitioned one, else itself. No row for a name
-- that does not exist.
SELECT asked.name, n.nspname::text, c.relname::text, asked.relkind::text, root.nspname::text, rc.relname::text
FROM (SELECT name, to_regclass(name) AS oid, (SELECT relkind FROM pg_class WHERE oid = to_regclass(name)) AS relkind
      FROM unnest(%s::text[]) AS name) AS asked
     JOIN pg_class rc ON rc.oid = asked.oid
     JOIN pg_namespace root ON root.oid = rc.relnamespace
     CROSS JOIN LATERAL (
         SELECT asked.oid::oid AS oid WHERE asked.relkind <> 'p'
         UNION ALL
         SELECT relid FROM pg_partition_tree(asked.oid) WHERE asked.relkind = 'p' AND isleaf
     ) AS leaf
     JOIN pg_class c ON c.oid = leaf.oid
     JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY 1, 2, 3;

-- name: tables
-- Each table of two arrays (schemas and names): its kind, whether the role may read it, and its replica identity: the columns
-- that tell rows apart, NULL where there are none. A deferrable key does not count.
SELECT n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, c.relreplident::text,
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
       (SELECT array_agg(a.attname::text ORDER BY array_position(i.indkey::smallint[], a.attnum))
        FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey::smallint[])
        WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
          AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)
FROM unnest(%s::text[], %s::text[]) AS asked (nspname, relname)
     JOIN pg_namespace n ON n.nspname = asked.nspname
     JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = asked.relname
ORDER BY 1, 2;

-- name: slot
-- The state of one slot. The reason of an invalidation is told since version 17.
SELECT s.plugin::text, s.slot_type, s.database::text, s.temporary, s.active_pid, s.wal_status,
       to_jsonb(s) ->> 'invalidation_reason', s.confirmed_flush_lsn::text, s.restart_lsn::text, s.safe_wal_size,
       (to_jsonb(s) ->> 'two_phase')::boolean
FROM pg_replication_slots s WHERE s.slot_name = %s;

-- name: create_slot
-- A permanent slot for pgoutput. Waits for the transactions that are open now.
SELECT lsn::text FROM pg_create_logical_replication_slot(%s, 'pgoutput', false, %s);

-- name: drop_slot
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s;

-- name: holder
-- The process that holds a slot.
SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s;

-- name: bounded
-- No statement may wait longer than this (milliseconds).
SELECT set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false);

-- name: open_transactions
-- What a new slot waits for: the oldest transactions that have written something.
SELECT pid, usename::text, xact_start::text, left(query, 80)
FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
ORDER BY xact_start LIMIT 3;

-- name: written
-- The end of the log that the server has written.
SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text;

-- name: positions
-- How far a slot and its walsender have come: what is kept, confirmed, sent and received (as the reader reported it),
-- and the end of the log. No row where there is no such slot; NULL where nobody reads. What walsenders do is shown to
-- members of pg_read_all_stats alone, so at last: whether it is hidden from this role.
SELECT s.restart_lsn::text, s.confirmed_flush_lsn::text, r.sent_lsn::text, r.write_lsn::text,
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text,
       s.wal_status,
       s.active_pid IS NOT NULL AND NOT pg_has_role('pg_read_all_stats', 'USAGE')
FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
WHERE s.slot_name = %s;

-- name: primary_keys
-- The primary key of each published table, in the key's order.
SELECT c.oid::bigint, array_agg(a.attname::text ORDER BY array_position(i.indkey::smallint[], a.attnum))
FROM pg_publication_tables t
     JOIN pg_namespace n ON n.nspname = t.schemaname
     JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
     JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
     JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey::smallint[])
WHERE t.pubname = %s
GROUP BY c.oid;

-- name: primary_key
-- The same of one table, by its OID: empty without a key, no row where the table is gone.
SELECT array(SELECT a.attname::text
             FROM pg_index i
                  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::smallint[])
             WHERE i.indrelid = c.oid AND i.indisprimary
             ORDER BY array_position(i.indkey::smallint[], a.attnum))
FROM pg_class c
WHERE c.oid = %s;

-- name: no_binary_form
-- The published columns whose values the server cannot send in binary form. One whose own type has no such form is sent as
-- text; but for one that is built of such a type (an array of aclitem) the server tries, and fails.
WITH RECURSIVE published AS (
    SELECT n.nspname, c.relname, a.attname, a.atttypid AS oid, a.atttypmod AS modifier
    FROM pg_publication_tables t
         JOIN pg_namespace n ON n.nspname = t.schemaname
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE t.pubname = %s
      AND (to_jsonb(t) -> 'attnames' IS NULL OR (to_jsonb(t) -> 'attnames') ? a.attname::text)
), parts AS (
    SELECT oid AS root, oid, false AS inside FROM published
    UNION
    SELECT parts.root, part.oid, parts.inside OR y.typtype <> 'd'
    FROM parts
         JOIN pg_type y ON y.oid = parts.oid
         CROSS JOIN LATERAL (
             SELECT y.typelem WHERE y.typsend = 'array_send'::regproc AND y.typelem <> 0
             UNION ALL SELECT y.typbasetype WHERE y.typtype = 'd'
             UNION ALL SELECT a.atttypid FROM pg_attribute a
                       WHERE y.typtype = 'c' AND a.attrelid = y.typrelid AND a.attnum > 0 AND NOT a.attisdropped
             UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = y.oid
             UNION ALL SELECT r.rngtypid FROM pg_range r WHERE r.rngmultitypid = y.oid
         ) AS part (oid)
)
SELECT p.nspname || '.' || p.relname || '.' || p.attname || ' (' || format_type(p.oid, p.modifier) || ')'
FROM published p
WHERE EXISTS (SELECT FROM parts JOIN pg_type y ON y.oid = parts.oid
              WHERE parts.root = p.oid AND parts.inside AND y.typsend = 0)
ORDER BY 1;

-- name: snapshot
-- What a snapshot of a publication copies: its tables with their published columns and types in the table's order, the filter
-- of their rows, and their primary keys. Last, what the stream's Relation message says of a table besides: its OID, replica
-- identity, and of each column the type's modifier and whether it belongs to the identity.
SELECT t.schemaname::text, t.tablename::text, c.relkind::text, coalesce(to_jsonb(t) ->> 'rowfilter', ''),
       (SELECT coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}') FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          AND CASE WHEN to_jsonb(t) -> 'attnames' IS NULL THEN a.attgenerated = ''
                   ELSE (to_jsonb(t) -> 'attnames') ? a.attname::text END),
       (SELECT coalesce(array_agg(a.atttypid::bigint ORDER BY a.attnum), '{}') FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          AND CASE WHEN to_jsonb(t) -> 'attnames' IS NULL THEN a.attgenerated = ''
                   ELSE (to_jsonb(t) -> 'attnames') ? a.attname::text END),
       coalesce((SELECT array_agg(a.attname::text ORDER BY array_position(i.indkey::smallint[], a.attnum))
                 FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey::smallint[])
                 WHERE i.indrelid = c.oid AND i.indisprimary), '{}'),
       greatest(c.reltuples, 0)::bigint, c.oid::bigint, c.relreplident::text,
       (SELECT coalesce(array_agg(a.atttypmod ORDER BY a.attnum), '{}') FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          AND CASE WHEN to_jsonb(t) -> 'attnames' IS NULL THEN a.attgenerated = ''
                   ELSE (to_jsonb(t) -> 'attnames') ? a.attname::text END),
       (SELECT coalesce(array_agg(c.relreplident = 'f' OR EXISTS (
                  SELECT FROM pg_index i
                  WHERE i.indrelid = c.oid AND a.attnum = ANY (i.indkey::smallint[]) AND i.indisvalid AND i.indimmediate
                    AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)
                ORDER BY a.attnum), '{}') FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          AND CASE WHEN to_jsonb(t) -> 'attnames' IS NULL THEN a.attgenerated = ''
                   ELSE (to_jsonb(t) -> 'attnames') ? a.attname::text END)
FROM pg_publication_tables t
     JOIN pg_namespace n ON n.nspname = t.schemaname
     JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
WHERE t.pubname = %s
ORDER BY 1, 2;

-- name: columns
-- The columns of one table with their types, and what may be its key: to be compared.
SELECT array_agg(a.attname::text ORDER BY a.attnum), array_agg(a.atttypid::bigint ORDER BY a.attnum),
       c.relreplident::text,
       (SELECT array_agg(i.indkey::text ORDER BY i.indexrelid) FROM pg_index i
        WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident))
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped
GROUP BY c.oid, c.relreplident;

-- name: session_publications
-- Publications of sessions, among them those of sessions whose process was killed.
SELECT pubname::text FROM pg_publication
WHERE starts_with(pubname, 'streamlab_session_') AND pg_has_role(pubowner, 'USAGE');

-- name: session_lock
-- A session holds this for its life; the server lets go of it when the session's connection ends in any way.
SELECT pg_try_advisory_lock(hashtext('streamlab session'), hashtext(%s));

-- name: session_unlock
SELECT pg_advisory_unlock(hashtext('streamlab session'), hashtext(%s));

-- name: watermark
-- A message of its own transaction in the log (prefix, content): a place that a reader of the log recognises.
SELECT pg_logical_emit_message(true, %s, %s::bytea)::text;

-- name: visibility
-- Which transactions this transaction sees.
SELECT pg_current_snapshot()::text;
