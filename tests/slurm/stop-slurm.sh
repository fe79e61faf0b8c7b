#!/usr/bin/env bash
# Stop the cluster of start-slurm.sh and remove its folder. Each daemon is ended by the pid in its own pid file, once it is
# known what that process is.
set -uo pipefail
LAB=${LANLINE_SLURM:-/tmp/lanline-slurm}
export SLURM_CONF=$LAB/etc/slurm.conf

running() { [ -d "/proc/$1" ] && [ "$(awk '/^State/ {print $2}' "/proc/$1/status" 2>/dev/null)" != Z ]; }
stop() { # stop PIDFILE WORD SECONDS
  local pid left=$(($3 * 10))
  pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] || return 0
  tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$2" || return 0
  kill "$pid"
  while running "$pid" && [ $left -gt 0 ]; do
    sleep 0.1
    left=$((left - 1))
  done
  if running "$pid"; then
    echo "$2 ($pid) did not stop in $3 s: SIGKILL" >&2
    kill -9 "$pid"
  fi
}

# Jobs are cancelled while the controller can still do it, so that no slurmstepd is left behind.
if timeout 5 scontrol ping >/dev/null 2>&1; then
  timeout 20 scancel --user=root
  for _ in $(seq 1 150); do
    [ -n "$(timeout 5 squeue -h -t R,CG,S -o %A)" ] || break
    sleep 0.1
  done
fi
for file in "$LAB"/run/slurmd.*.pid; do stop "$file" slurmd 20; done
stop "$LAB/run/slurmctld.pid" slurmctld 30
stop "$LAB/run/slurmdbd.pid" slurmdbd 30
stop "$LAB/run/mariadbd.pid" mariadbd 60
stop "$LAB/run/munged.pid" munged 10
[ "$(readlink /etc/slurm/slurm.conf)" != "$LAB/etc/slurm.conf" ] || rm -f /etc/slurm/slurm.conf
rm -rf "$LAB"
