#!/usr/bin/env bash
# What vm-namespaces.sh runs: goes into the machine's cgroups, and boots the machine until it is killed. A boot is a set of new namespaces in which
# the root's systemd is the first process.
#
#   vm-init.sh ROOT HOSTNAME CGROUP TREE...
set -euo pipefail
root=$1 name=$2 cgroup=$3
shift 3

if [ "$1" != boot ]; then
    for tree in "$@"; do echo $$ > "$tree/$cgroup/cgroup.procs"; done
    while :; do
        unshare --mount --net --pid --uts --ipc --cgroup --fork --kill-child --propagation private bash "$0" "$root" "$name" "$cgroup" boot || true
    done
fi

# The network: an address, and a gateway that never answers.
hostname "$name"
ip link set lo up
ip link add eth0 type veth peer name gateway
ip link set gateway up
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
ip neigh add 10.0.2.2 lladdr 02:00:00:00:00:01 dev eth0 nud permanent

# Settings of the whole kernel are this machine's.
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t proc proc "$root/mnt"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount --bind "$root/mnt/sys/net" "$root/proc/sys/net"
umount -l "$root/mnt"

mount -t sysfs sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
device() { mknod -m 666 "$root/dev/$1" c "$2" "$3"; }
device null 1 3
device zero 1 5
device full 1 7
device random 1 8
device urandom 1 9
device tty 5 0
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"

if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup "$root/sys/fs/cgroup"
else
    mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
    awk '$3 == "cgroup" {print $2, $4}' /proc/mounts | while read -r tree options; do
        options=$(tr ',' '\n' <<< "$options" | grep -vxE 'rw|ro|nosuid|nodev|noexec|relatime' | paste -sd,)
        mkdir "$root/sys/fs/cgroup/$(basename "$tree")"
        mount -t cgroup -o "${options/name=/none,name=}" cgroup "$root/sys/fs/cgroup/$(basename "$tree")"
    done
fi

cd "$root"
mkdir -p .outside
pivot_root . .outside
umount -l /.outside
mount --make-rshared /
exec env -i container=lxc SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /sbin/init < /dev/null
