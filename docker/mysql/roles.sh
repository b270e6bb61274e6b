#!/bin/bash
# Least-privilege accounts, as streamlab/stack/mysql.py makes them for the native stack. Run or sourced once by
# the image, against its socket, when its data directory is empty.

streamlab_accounts() {
    # In a string literal a backslash and a quote must be doubled. The statements go through standard input and
    # the login through a pipe, so that the password stands on no command line.
    local escaped=${MYSQL_ROOT_PASSWORD//\\/\\\\}
    escaped=${escaped//\'/\'\'}
    mysql --defaults-extra-file=<(printf '[client]\nuser=root\npassword="%s"\n' "${MYSQL_ROOT_PASSWORD//\\/\\\\}") \
        --protocol=socket <<SQL
SET SESSION sql_log_bin = 0;
CREATE USER IF NOT EXISTS 'streamlab_app'@'%' IDENTIFIED BY '$escaped';
GRANT ALL PRIVILEGES ON \`sl\\_%\`.* TO 'streamlab_app'@'%';
CREATE USER IF NOT EXISTS 'streamlab_cdc'@'%' IDENTIFIED BY '$escaped';
GRANT SELECT, RELOAD, SHOW DATABASES, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'streamlab_cdc'@'%';
GRANT LOCK TABLES ON \`sl\\_%\`.* TO 'streamlab_cdc'@'%';
CREATE USER IF NOT EXISTS 'streamlab_reader'@'%' IDENTIFIED BY '$escaped';
GRANT SELECT ON \`sl\\_%\`.* TO 'streamlab_reader'@'%';
SQL
}

streamlab_accounts
