#!/bin/sh
# Makes the secrets that compose.yaml reads, where they are not there yet, in a folder that only you can enter: in their
# containers the files are read by several users, none of them you. The keys of the bucket are taken from
# AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or made up for compose.minio.yaml.
set -eu
umask 077
folder="${1:-$(dirname "$0")/secrets}"
mkdir -p "$folder"
keep() {
    if [ ! -s "$folder/$1" ]; then
        printf '%s' "$2" >"$folder/$1"
        chmod 644 "$folder/$1"
    fi
}
random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}
keep pgpassword "$(random)"
keep mlflow_auth_admin_password "$(random)"
keep mlflow_flask_server_secret_key "$(random)"
keep aws_access_key_id "${AWS_ACCESS_KEY_ID:-pharos-$(random | cut -c1-8)}"
keep aws_secret_access_key "${AWS_SECRET_ACCESS_KEY:-$(random)}"
echo "in $folder: user admin, password in mlflow_auth_admin_password"
