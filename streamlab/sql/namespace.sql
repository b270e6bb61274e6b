-- What tidying a run's own schema in PostgreSQL needs.

-- name: disconnect_holders
-- Ends sessions that hold a lock on a schema or on a table in it: a notebook that stopped in mid-transaction. A table
-- that was not committed is visible to its own session alone; but whoever makes one holds a lock on the schema.
SELECT pg_terminate_backend(pid)
FROM (
    SELECT DISTINCT held.pid
    FROM pg_locks AS held
    JOIN pg_database ON pg_database.oid = held.database AND datname = current_database()
    LEFT JOIN pg_class ON held.locktype = 'relation' AND pg_class.oid = held.relation
    JOIN pg_namespace ON nspname = %s
        AND (relnamespace = pg_namespace.oid
             OR held.locktype = 'object' AND held.classid = 'pg_namespace'::regclass AND held.objid = pg_namespace.oid)
    WHERE held.pid <> pg_backend_pid()
) AS holders;
