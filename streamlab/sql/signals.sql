-- Debezium's signal table: a row that is inserted tells a source what to do. The same in MySQL and in PostgreSQL.
--
-- Debezium reads the columns by their order; {table} and {role} are quoted names.

-- name: create
-- The source writes here too: the marks between which it reads a chunk of a snapshot.
CREATE TABLE IF NOT EXISTS {table} (
    id   varchar(42) NOT NULL PRIMARY KEY,
    type varchar(32) NOT NULL,
    data text
);

-- name: grant
-- To the source's user: it inserts the marks, and deletes them.
GRANT SELECT, INSERT, DELETE ON {table} TO {role};

-- name: revoke
REVOKE SELECT, INSERT, DELETE ON {table} FROM {role};

-- name: send
INSERT INTO {table} (id, type, data) VALUES (%s, %s, %s);
