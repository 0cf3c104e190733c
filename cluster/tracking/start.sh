#!/bin/sh
# Every file in the secrets' folder becomes a variable of its name, in capitals: pgpassword is PGPASSWORD. Then the command
# runs in this process' place. So no secret stands in a compose file, a manifest or a command line.
set -eu
for file in "${SECRETS:-/run/secrets}"/*; do
    if [ -f "$file" ]; then
        export "$(basename "$file" | tr '[:lower:]' '[:upper:]')=$(cat "$file")"
    fi
done
exec "$@"
