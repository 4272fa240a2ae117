# Two balancer hosts in front of the lab's servers: haproxy, and keepalived with the address that clients know. Sourced by ops/up.
#
# The configurations are those of ops/haproxy and ops/keepalived with the lab's addresses put in: what runs here is what
# docs/install-ha.md installs.

LAB_VIP=$LAB_NET.100

balancer_address() { echo "$LAB_NET.$((40 + $1))"; }

# balancers_up SERVERS: both balancers, for so many servers
balancers_up() {
    local n
    have haproxy && have keepalived || { say "installing haproxy and keepalived"; apt_install haproxy keepalived; }
    for n in 1 2; do
        [ -f "$LAB/hosts/lb$n/address" ] || balancer_add "$n" "$1"
        host_up "lb$n"
    done
}

balancer_add() {
    local n=$1 servers=$2 dir=$LAB/hosts/lb$1
    mkdir -p "$dir/balancer"
    balancer_haproxy "$servers" > "$dir/balancer/haproxy.cfg"
    balancer_keepalived "$n" > "$dir/balancer/keepalived.conf"
    balancer_address "$n" > "$dir/address"
    host_link "lb$n" "$(balancer_address "$n")"
}

balancer_haproxy() {
    local n lines=
    for n in $(seq 1 "$1"); do lines+="    server s$n $(server_address "$n"):6443"$'\n'; done
    awk -v lines="$lines" '/^    server / { printf "%s", lines; lines = ""; next } { print }' "$REPO/ops/haproxy/haproxy.cfg"
}

balancer_keepalived() {
    local n=$1 other=$((3 - $1))
    sed -e "s/192\.0\.2\.41/$(balancer_address "$n")/; s/192\.0\.2\.42/$(balancer_address "$other")/; s/192\.0\.2\.100/$LAB_VIP/" \
        -e "s/router_id lb1/router_id lb$n/; s/priority 110/priority $((120 - 10 * n))/" "$REPO/ops/keepalived/keepalived.conf"
}

# balancer_holder: the balancer that holds the address
balancer_holder() {
    local n
    for n in 1 2; do
        if in_netns "trireme-lb$n" ip -o address show dev eth0 2> /dev/null | grep -q " $LAB_VIP/"; then echo "lb$n"; return 0; fi
    done
    return 1
}
