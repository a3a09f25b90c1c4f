#!/bin/bash
# Starts PostgreSQL with the settings and the life cycle that users of a PostgreSQL image rely on:
#
#   POSTGRES_PASSWORD          required, unless POSTGRES_HOST_AUTH_METHOD is trust
#   POSTGRES_USER              the superuser (postgres)
#   POSTGRES_DB                the database to create (the user's name)
#   POSTGRES_INITDB_ARGS       further arguments of initdb
#   POSTGRES_HOST_AUTH_METHOD  how clients over TCP prove who they are (what initdb was told)
#   /docker-entrypoint-initdb.d  *.sql, *.sql.gz and *.sh, run once in the order of their names
#
# A new data directory is first served by a temporary server, on the unix socket only, that creates
# the database and runs the scripts. It logs "ready to accept connections" just as the real one does.
set -Eeuo pipefail
shopt -s nullglob

main() {
    # Settings alone (`docker run image -c fsync=off`) are meant for the server.
    if [[ $# -eq 0 || ${1:0:1} == - ]]; then
        set -- postgres "$@"
    fi
    if [[ $1 != postgres ]]; then
        exec "$@"
    fi
    if [[ $(id -u) == 0 ]]; then
        prepare_directories
        exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$0" "$@"
    fi
    if [[ ! -s $PGDATA/PG_VERSION ]]; then
        initialise "${@:2}"
    fi
    exec "$@"
}

prepare_directories() {
    mkdir -p "$PGDATA"
    chmod 0700 "$PGDATA"
    find "$PGDATA" /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
}

initialise() {
    export POSTGRES_USER=${POSTGRES_USER:-postgres}
    export POSTGRES_DB=${POSTGRES_DB:-$POSTGRES_USER}
    if [[ -z ${POSTGRES_PASSWORD:-} && ${POSTGRES_HOST_AUTH_METHOD:-} != trust ]]; then
        echo >&2 'error: the database is new and POSTGRES_PASSWORD is not set'
        exit 1
    fi
    create_cluster
    start_temporary_server "$@"
    create_database
    run_scripts
    stop_temporary_server
    echo 'PostgreSQL init process complete; ready for start up.'
}

create_cluster() {
    # The arguments are split as a shell would, as users quote them for one.
    eval "initdb --username=\"\$POSTGRES_USER\" --pwfile=<(printf '%s\n' \"\${POSTGRES_PASSWORD:-}\") \
        ${POSTGRES_INITDB_ARGS:-}"
    local method=${POSTGRES_HOST_AUTH_METHOD:-$(postgres -C password_encryption)}
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
}

start_temporary_server() {
    # The last setting wins: whatever was asked for, this server listens on no address.
    local arguments
    printf -v arguments '%q ' "$@" -c listen_addresses= -p 5432
    pg_ctl --wait --silent --options="$arguments" start
}

create_database() {
    if [[ $POSTGRES_DB != postgres ]]; then
        sql --dbname=postgres --variable=name="$POSTGRES_DB" <<<'CREATE DATABASE :"name";'
    fi
}

run_scripts() {
    local script
    for script in /docker-entrypoint-initdb.d/*; do
        case $script in
            *.sh)
                echo "$0: running $script"
                if [[ -x $script ]]; then "$script"; else . "$script"; fi
                ;;
            *.sql)
                echo "$0: running $script"
                sql --file="$script"
                ;;
            *.sql.gz)
                echo "$0: running $script"
                gunzip --stdout "$script" | sql
                ;;
            *)
                echo "$0: ignoring $script"
                ;;
        esac
    done
}

stop_temporary_server() {
    pg_ctl --wait --silent --mode=fast stop
}

sql() {
    PGHOST='' PGHOSTADDR='' psql --no-psqlrc --quiet --no-password --set=ON_ERROR_STOP=1 \
        --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" "$@"
}

main "$@"
