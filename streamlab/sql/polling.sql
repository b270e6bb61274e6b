-- A table or a query that is polled, on PostgreSQL and on MySQL. What stands in braces is put in by
-- streamlab.cdc.polling: names are quoted by the rules of the server, values are parameters. A query of the user's is
-- wrapped as it is, so that a condition, an order and a limit can be added to any.

-- name: page
-- The next rows behind a position.
SELECT streamlab_polled.* FROM {source} AS streamlab_polled WHERE {condition} ORDER BY {order} LIMIT {limit};

-- name: whole
-- All rows.
SELECT streamlab_polled.* FROM {source} AS streamlab_polled;

-- name: shape
-- Names and types of the columns.
SELECT streamlab_polled.* FROM {source} AS streamlab_polled LIMIT 0;

-- name: count
-- How many rows lie behind a position.
SELECT count(*) FROM {source} AS streamlab_polled WHERE {condition};

-- name: last
-- The position of the last row.
SELECT {columns} FROM {source} AS streamlab_polled WHERE {condition} ORDER BY {order} LIMIT 1;

-- name: postgres_now
SELECT clock_timestamp();

-- name: mysql_now
SELECT UTC_TIMESTAMP(6);

-- name: postgres_key
-- The columns of the primary key, in its order.
SELECT a.attname FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (number, place)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
WHERE i.indrelid = to_regclass(%s) AND i.indisprimary ORDER BY k.place;

-- name: postgres_nullable
SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attnotnull AND NOT attisdropped;

-- name: mysql_nullable
SELECT column_name FROM information_schema.columns
WHERE table_schema = %s AND table_name = %s AND is_nullable = 'YES';
