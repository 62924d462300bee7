#!/bin/sh
# Writes .env and the files in .secrets, with fresh secrets. What is there already stays as it is.
set -eu
cd "$(dirname "$0")/.."

random() {
  od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

umask 077
if [ ! -e .env ]; then
  sed -e "s/^TRUSTWATCH_PRIVACY__PSEUDONYM_KEY=$/&$(random)/" -e "s/^TRUSTWATCH_WEB__TOKEN=$/&$(random)/" .env.example >.env
  echo "wrote .env"
fi
# Containers' users have to read what is in it; .secrets itself keeps everybody else out.
mkdir -p .secrets/alertmanager .secrets/kafka
chmod 0755 .secrets/alertmanager .secrets/kafka
if [ ! -e .secrets/smtp-password ]; then
  : >.secrets/smtp-password
  chmod 0644 .secrets/smtp-password
  echo "wrote .secrets/smtp-password, empty: mail without a password"
fi
if [ ! -e .secrets/grafana-admin-password ]; then
  random >.secrets/grafana-admin-password
  chmod 0644 .secrets/grafana-admin-password
  echo "wrote .secrets/grafana-admin-password"
fi
