#!/bin/sh
# Runs once, on an empty data volume: the database, its roles and their passwords. None of them is a superuser.
set -eu
run() { psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" "$@"; }
run --dbname postgres --command 'CREATE DATABASE pld'
run --dbname pld --file "${PLD_CLUSTER_SQL:-/docker-entrypoint-initdb.d/roles/cluster.sql}"
run --dbname pld --set application="$PLD_DATABASE_PASSWORD" --set migrator="$PLD_MIGRATOR_DATABASE_PASSWORD" \
  --set sealer="$PLD_SEALER_DATABASE_PASSWORD" <<'SQL'
ALTER ROLE pld_app PASSWORD :'application';
ALTER ROLE pld_migrator PASSWORD :'migrator';
ALTER ROLE pld_sealer PASSWORD :'sealer';
SQL
