#!/bin/sh
# The part of the official image's entrypoint that the stack uses.
set -eu
data=/var/lib/mysql
: >/tmp/first.sql
if [ ! -d "$data/mysql" ]; then
    install -d -o mysql -g mysql "$data" /run/mysqld
    mariadb-install-db --user=mysql --datadir="$data" --skip-test-db >/dev/null
    cat >/tmp/first.sql <<END
CREATE DATABASE blog;
CREATE USER blog@'%' IDENTIFIED BY '$(cat /run/secrets/db_password)';
GRANT ALL ON *.* TO blog@'%';
END
fi
exec mariadbd --user=mysql --datadir="$data" --socket=/tmp/mysql.sock --init-file=/tmp/first.sql
