#!/usr/bin/env bash
# Install what the cluster of these tests consists of (Debian 12: slurm 22.05), as root; what is there stays as it is.
set -euo pipefail
packages=(munge slurmctld slurmd slurmdbd slurm-client slurm-wlm-basic-plugins mariadb-server)
missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
# Packages must not start daemons of their own: the tests start theirs, with their own configuration.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod 755 $policy
  trap 'rm -f $policy' EXIT
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
