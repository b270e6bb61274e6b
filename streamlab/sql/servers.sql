-- What the servers themselves know of their logs and of those who read them.
--
-- Any role may run these on PostgreSQL; MySQL asks for REPLICATION CLIENT.

-- name: bounded
-- No question may hold up the others, or keep a lock for long.
SELECT set_config('statement_timeout', %s, false);

-- name: slots
-- Bytes of the write-ahead log behind each replication slot: what its reader has not confirmed, and what the server
-- keeps for it. A physical slot confirms nothing, a lost one keeps nothing: NULL there.
SELECT slot_name, coalesce(database, ''), active, coalesce(wal_status, ''),
       pg_wal_lsn_diff(written, confirmed_flush_lsn)::bigint,
       pg_wal_lsn_diff(written, restart_lsn)::bigint
FROM pg_replication_slots,
     (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END) AS log (written)
ORDER BY slot_name;

-- name: binlog_files
-- Name, size in bytes and encryption of every binary log file that has not been purged.
SHOW BINARY LOGS;

-- name: binlog_position
-- The binary log file that is written now, and the position in it.
SHOW BINARY LOG STATUS;
