-- What has to hold on a MySQL before its binary log can be read, where the log is, and a snapshot of tables.
--
-- The user needs REPLICATION CLIENT for the state of the log, REPLICATION SLAVE for the stream, SELECT for a snapshot,
-- and RELOAD for a moment without writers between the two.

-- name: session
-- Times in UTC, and a mode that neither changes what is read nor depends on the server's own.
SET SESSION time_zone = '+00:00', SESSION sql_mode = '';

-- name: replica
-- What a reader of the stream asks for, and who it is. Checksums come as the server writes them.
SET @source_heartbeat_period = %(heartbeat)s, @master_heartbeat_period = %(heartbeat)s,
    @source_binlog_checksum = @@global.binlog_checksum, @master_binlog_checksum = @@global.binlog_checksum,
    @replica_uuid = %(uuid)s, @slave_uuid = %(uuid)s;

-- name: version
-- What it is, before anything that other servers do not have is asked.
SELECT @@global.version;

-- name: server
-- Settings that decide what is in the log.
SELECT @@global.log_bin, @@global.binlog_format, @@global.binlog_row_image,
       @@global.binlog_row_metadata, @@global.gtid_mode, @@global.binlog_transaction_compression,
       @@global.binlog_row_value_options, @@global.server_id, @@global.gtid_executed, @@global.gtid_purged,
       CURRENT_USER();

-- name: grants
SHOW GRANTS;

-- name: charsets
-- Collation -> character set.
SELECT id, character_set_name FROM information_schema.collations WHERE id IS NOT NULL;

-- name: status
-- Where the log is now: file, offset, two filters, and all transactions in it.
SHOW BINARY LOG STATUS;

-- name: logs
-- The files of the log and their sizes.
SHOW BINARY LOGS;

-- name: replicas
-- Who else reads, by server_id.
SHOW REPLICAS;

-- name: tables
-- The tables of a database, without views.
SELECT table_schema, table_name FROM information_schema.tables
WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
ORDER BY 1, 2;

-- name: columns
-- The columns of one table, in order.
SELECT column_name, column_type, data_type, datetime_precision, character_maximum_length
FROM information_schema.columns WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position;

-- name: key
-- The columns of its primary key.
SELECT column_name FROM information_schema.statistics
WHERE table_schema = %s AND table_name = %s AND index_name = 'PRIMARY' ORDER BY seq_in_index;

-- name: lock
-- For a moment nobody writes.
FLUSH TABLES WITH READ LOCK;

-- name: unlock
UNLOCK TABLES;

-- name: snapshot
-- All tables as of one instant.
SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ;
START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY;
