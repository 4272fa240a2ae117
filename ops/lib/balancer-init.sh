#!/usr/bin/env bash
# First process of a balancer host: haproxy and keepalived; restarts whichever of the two dies, as systemd would.
set -u
name=$1 dir=$2
config=$dir/balancer

hostname "$name"
mount --make-rslave /
# Sockets and pid files have fixed places below /run.
mount -t tmpfs tmpfs /run && mkdir -p /run/haproxy

keep() { # keep NAME COMMAND...: runs it again whenever it ends
    local what=$1; shift
    (while :; do
        "$@" >> "$dir/$what.log" 2>&1
        sleep 0.5
    done) &
}

keep haproxy haproxy -db -f "$config/haproxy.cfg"
keep keepalived keepalived --dont-fork --log-console --no-syslog --vrrp --use-file "$config/keepalived.conf"
wait
