-- Least-privilege roles, as streamlab/stack/postgres.py makes them for the native stack. Run once by the image,
-- in database streamlab, when its data directory is empty.

-- psql reads the password from the container's environment: it stands in no file and no command line.
\getenv password POSTGRES_PASSWORD

CREATE ROLE streamlab_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD :'password';
CREATE ROLE streamlab_cdc LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE REPLICATION PASSWORD :'password';
CREATE ROLE streamlab_reader LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD :'password';

REVOKE ALL ON DATABASE streamlab FROM PUBLIC;
GRANT CONNECT ON DATABASE streamlab TO streamlab_app, streamlab_cdc, streamlab_reader;
-- CREATE: schemas of its own, and publications of its own tables.
GRANT CREATE, TEMPORARY ON DATABASE streamlab TO streamlab_app;
ALTER DEFAULT PRIVILEGES FOR ROLE streamlab_app GRANT USAGE ON SCHEMAS TO streamlab_cdc, streamlab_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE streamlab_app GRANT SELECT ON TABLES TO streamlab_cdc, streamlab_reader;
-- How far a walsender has come is shown to members of this alone.
GRANT pg_read_all_stats TO streamlab_reader;
