# Hosts on one machine: each a network namespace on a common switch, plus mount, UTS, IPC and PID namespaces whose first
# process runs containerd and trireme (or, on a balancer, haproxy and keepalived). Killing that process is a power cut. Sourced by ops/up, ops/down and the test harness.
#
# On disk: $LAB/hosts/NAME/{address,command,containerd,data,log}. On the machine: network namespaces trireme-NAME and trireme-switch, one link
# trireme-lab in the main namespace (10.77.0.1), cgroups below /trireme-lab. lab_down removes exactly these.

LAB_NET=10.77.0
LAB_GATEWAY=$LAB_NET.1
SWITCH=trireme-switch
LAB_LINK=trireme-lab
LAB_CGROUP=trireme-lab

netns_exists() { [ -e "/run/netns/$1" ]; }
in_netns() { local ns=$1; shift; nsenter --net="/run/netns/$ns" "$@"; }

# lab_switch: the switch, and this machine's own port on it
lab_switch() {
    netns_exists $SWITCH || ip netns add $SWITCH
    in_netns $SWITCH ip link show br0 >/dev/null 2>&1 || in_netns $SWITCH ip link add br0 type bridge
    in_netns $SWITCH ip link set br0 up
    if ! ip link show $LAB_LINK >/dev/null 2>&1; then
        ip link add $LAB_LINK type veth peer name up0 netns $SWITCH
        in_netns $SWITCH ip link set up0 master br0
    fi
    in_netns $SWITCH ip link set up0 up
    ip link set $LAB_LINK up
    ip addr replace $LAB_GATEWAY/24 dev $LAB_LINK
}

# host_add NAME ADDRESS COMMAND...: defines a host; COMMAND is what runs beside containerd (@DATA@ stands for its data directory)
host_add() {
    local name=$1 address=$2 dir=$LAB/hosts/$1; shift 2
    mkdir -p "$dir/data" "$dir/containerd"
    printf '%s\n' "$address" > "$dir/address"
    printf '%s\n' "$@" > "$dir/command"
    host_link "$name" "$address"
}

host_link() {
    local name=$1 address=$2 ns=trireme-$1
    netns_exists "$ns" || ip netns add "$ns"
    if ! in_netns "$ns" ip link show eth0 >/dev/null 2>&1; then
        in_netns $SWITCH ip link del "p-$name" 2>/dev/null || true
        ip link add eth0 netns "$ns" type veth peer name "p-$name" netns $SWITCH
    fi
    in_netns $SWITCH ip link set "p-$name" master br0 up
    in_netns "$ns" ip link set lo up
    in_netns "$ns" ip link set eth0 up
    in_netns "$ns" ip addr replace "$address/24" dev eth0
    # Without a default route a ClusterIP fails on the host itself, before it is rewritten.
    in_netns "$ns" ip route replace default via $LAB_GATEWAY
    in_netns "$ns" sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
}

# containerd_config DIR SOCKET CNI_DIR: a configuration for one containerd of ours
containerd_config() {
    cat <<TOML
version = 2
root = "$1/root"
state = "$1/state"
[grpc]
  address = "$2"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/trireme/pause:1"
  # A negative OOM score needs CAP_SYS_RESOURCE, which containers and some machines lack: runc would die of it.
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$3/bin"
    conf_dir = "$3/net.d"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "$1/certs.d"
TOML
}

# host_up NAME: powers a host on, if it is off
host_up() {
    local name=$1 dir=$LAB/hosts/$1
    [ -f "$dir/address" ] || die "no host named $name"
    ! alive "$dir/pid" || return 0
    host_link "$name" "$(cat "$dir/address")"
    if [ -d "$dir/balancer" ]; then
        # The balancer's address outlived the power cut with its network namespace.
        in_netns "trireme-$name" ip address flush dev eth0
        host_link "$name" "$(cat "$dir/address")"
        spawn "$dir/pid" "$dir/log" nsenter --net="/run/netns/trireme-$name" \
            unshare -m -u -i -p -f --kill-child --mount-proc bash "$REPO/ops/lib/balancer-init.sh" "$name" "$dir"
        return 0
    fi
    # A real reboot starts with no pod network and no rules; the network namespace outlives our power cut.
    in_netns "trireme-$name" nft flush ruleset 2>/dev/null || true
    in_netns "trireme-$name" ip link del cni0 2>/dev/null || true
    in_netns "trireme-$name" ip link del flannel.1 2>/dev/null || true
    rm -rf "$dir/containerd/state"
    grep -qx -e --disable-agent "$dir/command" || place_images "$dir/data/agent/images"
    containerd_config "$dir/containerd" "$dir/containerd/containerd.sock" "$dir/data/agent/cni" > "$dir/containerd/config.toml"
    spawn "$dir/pid" "$dir/log" nsenter --net="/run/netns/trireme-$name" \
        unshare -m -u -i -p -f --kill-child --mount-proc bash "$REPO/ops/lib/host-init.sh" "$name" "$dir" "$LAB/bin/trireme"
}

# host_off NAME: a power cut
host_off() {
    stop "$LAB/hosts/$1/pid" KILL
    # A host without power holds no address of the balancers either; its network namespace would.
    [ ! -d "$LAB/hosts/$1/balancer" ] || in_netns "trireme-$1" ip address flush dev eth0 || true
}

# host_pid NAME PROCESS: pid (as seen from here) of a host's process: trireme or containerd
host_pid() {
    local init pid
    read -r init _ < "$LAB/hosts/$1/pid"
    for pid in $(pgrep -x "$2" || true); do
        [ "$(readlink "/proc/$pid/ns/net" 2>/dev/null)" = "$(readlink "/proc/$init/ns/net" 2>/dev/null)" ] && { echo "$pid"; return 0; }
    done
    return 1
}

# host_run NAME COMMAND...: runs a command inside a host
host_run() {
    local name=$1 init child; shift
    read -r init _ < "$LAB/hosts/$name/pid"
    child=$(pgrep -P "$init" | head -n 1)
    nsenter -t "${child:-$init}" -m -u -i -p -n "$@"
}

# host_remove NAME: powers a host off and removes what it had
host_remove() {
    local name=$1
    host_off "$name"
    ! netns_exists "trireme-$name" || ip netns del "trireme-$name"
    remove_cgroups "$LAB_CGROUP/$name"
    remove_mounts "$LAB/hosts/$name"
    rm -rf "${LAB:?}/hosts/${name:?}"
}

# lab_down: every host off, and everything that the lab made removed
lab_down() {
    local dir name
    for dir in "$LAB"/hosts/*/; do
        [ -d "$dir" ] || continue
        name=$(basename "$dir")
        host_remove "$name"
    done
    ! netns_exists $SWITCH || ip netns del $SWITCH
    ! ip link show $LAB_LINK >/dev/null 2>&1 || ip link del $LAB_LINK
    remove_cgroups $LAB_CGROUP
    remove_mounts "$LAB/hosts"
    rm -rf "${LAB:?}/hosts"
}

# remove_cgroups NAME: a top-level cgroup of ours, in every hierarchy
remove_cgroups() {
    local top group
    for top in /sys/fs/cgroup/*/"$1" /sys/fs/cgroup/"$1"; do
        [ -d "$top" ] || continue
        find "$top" -depth -type d | while read -r group; do rmdir "$group" 2>/dev/null || true; done
    done
}

# remove_mounts DIR: whatever is still mounted below
remove_mounts() {
    local mount
    awk -v d="$1/" 'index($5, d) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r mount; do umount -l "$mount" 2>/dev/null || true; done
}
