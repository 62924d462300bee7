#!/bin/sh
# Writes .env and a password for Grafana's user admin, with fresh secrets. What is there already stays as it is.
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
mkdir -p .secrets/alertmanager
chmod 0755 .secrets/alertmanager
if [ ! -e .secrets/grafana-admin-password ]; then
  random >.secrets/grafana-admin-password
  # Grafana's user in the container has to read it; the folder around it keeps everybody else out.
  chmod 0644 .secrets/grafana-admin-password
  echo "wrote .secrets/grafana-admin-password"
fi
