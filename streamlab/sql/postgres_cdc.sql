-- What a reader of PostgreSQL's changes asks the catalog. Any role may run these.

-- name: types
-- What has to be known of types to read their values: of those asked for (an array of OIDs), and of all that they are
-- built of. Kind is e (enum), d (domain), c (composite), r (range), m (multirange), a (array), h (hstore) or b (another
-- base type); related is the type of a domain's base, an array's elements, a range's bounds, a multirange's ranges.
WITH RECURSIVE wanted (oid) AS (
    SELECT unnest(%s::oid[])
    UNION
    SELECT part.oid
    FROM wanted
    JOIN pg_type AS t ON t.oid = wanted.oid
    CROSS JOIN LATERAL (
        SELECT t.typelem
        UNION ALL SELECT t.typbasetype
        UNION ALL SELECT rngsubtype FROM pg_range WHERE rngtypid = t.oid
        UNION ALL SELECT rngtypid FROM pg_range WHERE rngmultitypid = t.oid
        UNION ALL SELECT atttypid FROM pg_attribute
                  WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped
    ) AS part (oid)
    WHERE part.oid <> 0
)
SELECT t.oid::bigint,
       t.typname::text,
       CASE WHEN t.typsubscript = 'array_subscript_handler'::regproc THEN 'a'
            WHEN t.typtype = 'b' AND t.typname = 'hstore' THEN 'h'
            ELSE t.typtype::text END,
       coalesce(nullif(t.typbasetype, 0), nullif(t.typelem, 0), r.rngsubtype, m.rngtypid, 0)::bigint,
       coalesce(element.typdelim, ',')::text,
       f.names,
       f.types
FROM wanted
JOIN pg_type AS t USING (oid)
LEFT JOIN pg_type AS element ON element.oid = t.typelem
LEFT JOIN pg_range AS r ON r.rngtypid = t.oid
LEFT JOIN pg_range AS m ON m.rngmultitypid = t.oid
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(attname::text ORDER BY attnum), '{}'),
           coalesce(array_agg(atttypid::bigint ORDER BY attnum), '{}')
    FROM pg_attribute
    WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped
) AS f (names, types);
