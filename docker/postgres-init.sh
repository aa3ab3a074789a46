#!/bin/sh
# Runs once, on an empty data volume: the application's own role and database. The role is no superuser.
set -eu
psql --no-psqlrc --set ON_ERROR_STOP=1 --set password="$PLD_DATABASE_PASSWORD" --username "$POSTGRES_USER" <<'SQL'
CREATE ROLE pld LOGIN PASSWORD :'password';
CREATE DATABASE pld OWNER pld;
REVOKE ALL ON DATABASE pld FROM PUBLIC;
SQL
