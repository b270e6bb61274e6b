-- What one may want to know of a PostgreSQL database before one follows it. Any role may run these; nothing is changed.

-- name: database
-- Database, role, version, whether the log carries what logical decoding needs, and what the role may do.
SELECT current_database()::text, current_user::text, current_setting('server_version'), current_setting('wal_level'),
       pg_database_size(current_database())::bigint,
       (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user);

-- name: tables
-- Every table of users with its estimated rows (-1: never analyzed), its bytes with indexes and TOAST, what was done to
-- it since the statistics were reset, and how the log tells its rows apart. Partitions count for themselves.
SELECT n.nspname::text, c.relname::text, c.reltuples::bigint, pg_total_relation_size(c.oid)::bigint,
       coalesce(s.n_tup_ins, 0)::bigint, coalesce(s.n_tup_upd, 0)::bigint, coalesce(s.n_tup_del, 0)::bigint,
       CASE c.relreplident WHEN 'd' THEN CASE WHEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
                                              THEN 'primary key' ELSE 'none' END
                           WHEN 'i' THEN 'index' WHEN 'f' THEN 'whole row' ELSE 'none' END,
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
FROM pg_class c
     JOIN pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
WHERE c.relkind = 'r' AND c.relpersistence = 'p'
  AND n.nspname <> 'information_schema' AND NOT starts_with(n.nspname, 'pg_')
ORDER BY 4 DESC, 1, 2;

-- name: publications
-- Each publication with its tables.
SELECT pubname::text, schemaname::text, tablename::text FROM pg_publication_tables ORDER BY 1, 2, 3;
