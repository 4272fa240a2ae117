#!/usr/bin/env bash
# First process of a host: containerd, then trireme; restarts whichever of the two dies, as systemd would.
set -u
name=$1 dir=$2 binary=$3
socket=$dir/containerd/containerd.sock

hostname "$name"
mount --make-rslave /
# crun and some tools refuse the unified hierarchy beside the legacy ones.
umount /sys/fs/cgroup/unified 2>/dev/null || true
mount --bind "$dir" "$dir" && mount --make-shared "$dir"
# Namespaces of pods are bound here: keep them to this host.
mkdir -p /run/netns /run/trireme
mount -t tmpfs tmpfs /run/netns && mount --make-shared /run/netns
printf '127.0.0.1 localhost\n%s %s\n' "$(cat "$dir/address")" "$name" > "$dir/hosts"
mount --bind "$dir/hosts" /etc/hosts

keep() { # keep NAME COMMAND...: runs it again whenever it ends
    local what=$1; shift
    (while :; do
        "$@" >> "$dir/$what.log" 2>&1
        [ ! -e "$dir/halt-$what" ] || exit 0
        sleep 0.5
    done) &
}

keep containerd containerd --config "$dir/containerd/config.toml"
until ctr -a "$socket" version > /dev/null 2>&1; do sleep 0.1; done

mapfile -t command < "$dir/command"
# As the units run it (ops/systemd): what must be readable for others gets its mode from the code.
umask 0077
keep trireme "$binary" "${command[@]//@DATA@/$dir/data}"
wait
