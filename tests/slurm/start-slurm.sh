#!/usr/bin/env bash
# Start a SLURM cluster on loopback, as root, without systemd: three virtual nodes (n3 says that it has a GPU), accounts,
# and a partition whose jobs give way to another's. Starts only what is not running; packages.sh installs what it needs.
#   LANLINE_SLURM=/tmp/lanline-slurm   its folder: configuration, keys, logs, queue, accounting database
# While it runs, /etc/slurm/slurm.conf is a link to its configuration: srun inside Snakemake's jobs looks there.
set -euo pipefail
LAB=${LANLINE_SLURM:-/tmp/lanline-slurm}
SOCKET=$LAB/run/munge.socket SQL=$LAB/run/mysql/socket
HOST=$(hostname -s)
[ "$(id -u)" = 0 ] || { echo "only root can start the cluster" >&2; exit 1; }
getent hosts "$HOST" >/dev/null || { echo "the host name '$HOST' does not resolve: add it to /etc/hosts" >&2; exit 1; }
if [ -e /etc/slurm/slurm.conf ] && [ "$(readlink /etc/slurm/slurm.conf)" != "$LAB/etc/slurm.conf" ]; then
  echo "/etc/slurm/slurm.conf is of another cluster ($(readlink -f /etc/slurm/slurm.conf)): stop that one first" >&2
  exit 1
fi

alive() { # alive PIDFILE WORD: the process of the file lives, and WORD is in its command line
  local pid
  pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$2"
}
wait_for() { # wait_for SECONDS WHAT COMMAND...
  local left=$(($1 * 10)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    left=$((left - 1))
    [ $left -gt 0 ] || { echo "$what did not come up; see $LAB/log" >&2; return 1; }
    sleep 0.1
  done
}

umask 022
mkdir -p "$LAB"/{etc,run,log,state,spool}

# ---- munge, with a key of its own
if ! alive "$LAB/run/munged.pid" munged; then
  [ -s "$LAB/etc/munge.key" ] || (umask 077 && head -c 1024 /dev/urandom >"$LAB/etc/munge.key")
  rm -f "$SOCKET" "$SOCKET.lock"
  munged --force --num-threads=2 --key-file="$LAB/etc/munge.key" --socket="$SOCKET" --pid-file="$LAB/run/munged.pid" \
    --log-file="$LAB/log/munged.log" --seed-file="$LAB/state/munged.seed" 2>>"$LAB/log/munged.err"
  wait_for 10 munged munge -n -S "$SOCKET"
fi

# ---- accounting: MariaDB and slurmdbd
if [ ! -d "$LAB/mysql/mysql" ]; then
  install -d -o mysql -g mysql -m 700 "$LAB/mysql"
  mariadb-install-db --no-defaults --user=mysql --datadir="$LAB/mysql" --skip-test-db \
    --auth-root-authentication-method=socket --auth-root-socket-user=root >"$LAB/log/mysql-install.log" 2>&1
fi
if ! alive "$LAB/run/mariadbd.pid" mariadbd; then
  install -d -o mysql -g mysql -m 755 "$LAB/run/mysql"
  setsid nohup mariadbd --no-defaults --user=mysql --datadir="$LAB/mysql" --socket="$SQL" --skip-networking \
    --pid-file="$LAB/mysql/self.pid" --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 \
    --performance-schema=0 --skip-log-bin --innodb-flush-log-at-trx-commit=2 \
    >"$LAB/log/mariadbd.log" 2>&1 </dev/null &
  echo $! >"$LAB/run/mariadbd.pid"
  wait_for 60 mariadbd mariadb-admin --no-defaults --socket="$SQL" ping
fi
(
  umask 077
  cat >"$LAB/etc/slurmdbd.conf" <<END
AuthType=auth/munge
AuthInfo=socket=$SOCKET
DbdHost=$HOST
DbdAddr=127.0.0.1
DbdPort=16819
SlurmUser=root
PidFile=$LAB/run/slurmdbd.pid
LogFile=$LAB/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
END
)

# ---- the cluster's configuration
cat >"$LAB/etc/slurm.conf" <<END
ClusterName=lab
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
AuthType=auth/munge
# a job that is queued again starts once its old credentials have run out
AuthInfo=socket=$SOCKET,cred_expire=5
StateSaveLocation=$LAB/state/slurmctld
SlurmdSpoolDir=$LAB/spool/%n
SlurmctldPidFile=$LAB/run/slurmctld.pid
SlurmdPidFile=$LAB/run/slurmd.%n.pid
SlurmctldLogFile=$LAB/log/slurmctld.log
SlurmdLogFile=$LAB/log/slurmd.%n.log
SlurmdParameters=config_overrides
# no cgroups: those of the machine are left alone
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog=$LAB/etc/task-prolog
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
SchedulerParameters=sched_interval=5,bf_interval=5,default_queue_depth=200
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MinJobAge=900
KillWait=5
ReturnToService=2
# srun asks again after half of this
SlurmctldTimeout=10
SlurmdTimeout=120
PropagateResourceLimits=NONE
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
AccountingStoragePass=$SOCKET
AccountingStorageEnforce=associations
AccountingStoreFlags=job_comment
AccountingStorageTRES=gres/gpu
GresTypes=gpu
NodeName=n1 NodeHostname=$HOST NodeAddr=127.0.0.1 Port=16821 CPUs=2 RealMemory=4000
NodeName=n2 NodeHostname=$HOST NodeAddr=127.0.0.1 Port=16822 CPUs=2 RealMemory=4000
NodeName=n3 NodeHostname=$HOST NodeAddr=127.0.0.1 Port=16823 CPUs=2 RealMemory=4000 Gres=gpu:1
PartitionName=main Nodes=n1,n2,n3 Default=YES MaxTime=1-00:00:00 DefaultTime=10 PriorityTier=5 PreemptMode=OFF
PartitionName=gpu Nodes=n3 MaxTime=02:00:00 DefaultTime=10 PriorityTier=5 PreemptMode=OFF
PartitionName=spot Nodes=n2 MaxTime=UNLIMITED DefaultTime=10 PriorityTier=1 PreemptMode=REQUEUE GraceTime=3
PartitionName=urgent Nodes=n2 MaxTime=00:30:00 DefaultTime=10 PriorityTier=10 PreemptMode=OFF
END
echo "NodeName=n3 Name=gpu File=/dev/null" >"$LAB/etc/gres.conf"
# On a real cluster the nodes may have no route to the tracking server. Here a proxy that does not answer stands for that.
cat >"$LAB/etc/task-prolog" <<END
#!/bin/sh
[ ! -e $LAB/no-route ] || echo "export http_proxy=http://127.0.0.1:9"
END
chmod 755 "$LAB/etc/task-prolog"
export SLURM_CONF=$LAB/etc/slurm.conf
mkdir -p /etc/slurm
ln -sfn "$LAB/etc/slurm.conf" /etc/slurm/slurm.conf

# ---- its daemons
if ! alive "$LAB/run/slurmdbd.pid" slurmdbd; then
  MYSQL_UNIX_PORT=$SQL slurmdbd </dev/null >>"$LAB/log/slurmdbd.out" 2>&1
fi
known() { sacctmgr -nP list cluster format=cluster | grep -qx lab || sacctmgr -iQ add cluster lab; }
wait_for 60 slurmdbd known
if ! sacctmgr -nP list assoc user=root format=account | grep -qx research; then
  sacctmgr -iQ add account research Description=lab Organization=lab >/dev/null
  sacctmgr -iQ add user root account=research >/dev/null
  sacctmgr -iQ modify user root set DefaultAccount=research >/dev/null
fi
if ! alive "$LAB/run/slurmctld.pid" slurmctld; then
  mkdir -p "$LAB/state/slurmctld"
  slurmctld </dev/null >>"$LAB/log/slurmctld.out" 2>&1
  wait_for 30 slurmctld scontrol ping
fi
for node in n1 n2 n3; do
  mkdir -p "$LAB/spool/$node"
  alive "$LAB/run/slurmd.$node.pid" slurmd || slurmd -N $node </dev/null >>"$LAB/log/slurmd.out" 2>&1
done
ready() { [ "$(sinfo -hN -p main -o %T | grep -cE '^(idle|mixed|allocated)$')" = 3 ]; }
wait_for 60 "all nodes" ready
