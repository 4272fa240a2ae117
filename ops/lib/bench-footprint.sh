# ops/bench footprint: what idle servers and agents take. Sourced by ops/bench; hosts as in ops/lib/host.sh, under names of their own.
#
# bs: a server without a node. bn: a server that is also a node. ba: an agent of bs, powered on after bs alone was measured.
# b1, b2, b3: three servers of one cluster.

FOOTPRINT_SECONDS=60
FOOTPRINT_SETTLE=60

bench_footprint() {
    [ -z "${seconds:-}" ] || FOOTPRINT_SECONDS=$seconds FOOTPRINT_SETTLE=$seconds
    have strace || apt_install strace
    # Debian's containerd and runc: the nodes are real.
    make_images
    bench_header "footprint: idle, after $FOOTPRINT_SETTLE s of rest, over $FOOTPRINT_SECONDS s"
    printf 'about %s minutes; each row is printed when it is measured\n\n' "$(((3 * (FOOTPRINT_SETTLE + FOOTPRINT_SECONDS * 3 / 2) + 90) / 60))"
    trap footprint_clean EXIT
    footprint_hosts
    footprint_table
    trap - EXIT
    footprint_clean
    printf '\nrelease binary: %.1f MB (target: 60)  %s\n' "$(binary_mb)" "$(verdict "$(binary_mb)" 60)"
}

footprint_clean() { lab_down; rm -rf "${LAB:?}"; }

binary_mb() { stat -c %s "$BINARY" | awk '{printf "%.1f", $1 / 1e6}'; }

footprint_hosts() {
    mkdir -p "$LAB/hosts" "$LAB/bin"
    echo "{}" > "$LAB/config.yaml"
    install -m 755 "$BINARY" "$LAB/bin/trireme"
    lab_switch
    host_add bs $LAB_NET.11 server --cluster-init --disable-agent --data-dir @DATA@ --config $LAB/config.yaml --node-name bs --node-ip $LAB_NET.11 \
        --write-kubeconfig @DATA@/kubeconfig.yaml
    host_add bn $LAB_NET.12 server --cluster-init --data-dir @DATA@ --config $LAB/config.yaml --node-name bn --node-ip $LAB_NET.12 \
        --write-kubeconfig @DATA@/kubeconfig.yaml \
        --container-runtime-endpoint "$LAB/hosts/bn/containerd/containerd.sock" --cgroup-root /$LAB_CGROUP/bn "${NODE_ARGS[@]}"
    host_up bs
    host_up bn
    wait_for 60 "the server (log: $LAB/hosts/bs/trireme.log)" kubectl_on bs get --raw /readyz
    wait_for 90 "the server's own node (log: $LAB/hosts/bn/trireme.log)" footprint_nodes bn
}

# kubectl_on HOST ...: as its administrator
kubectl_on() {
    local host=$1; shift
    kubectl --kubeconfig "$LAB/hosts/$host/data/kubeconfig.yaml" --server "https://$(cat "$LAB/hosts/$host/address"):6443" "$@"
}

# footprint_nodes HOST: whether its one node is Ready
footprint_nodes() {
    [ "$(kubectl_on "$1" get nodes -o jsonpath='{.items[*].status.conditions[?(@.type=="Ready")].status}')" = True ]
}

footprint_table() {
    local out; out=$(mktemp -d)
    printf '%-22s %9s %7s %8s %7s %8s %7s %7s %9s\n' '' 'RSS MiB' 'anon' 'target' 'CPU %' 'wakes/s' 'fsync/s' 'kB/min' 'threads'
    footprint_measure "$out" bs bn
    footprint_row "$out/bs" 'server, no node' 100
    footprint_row "$out/bn" 'server that is a node' 140
    host_add ba $LAB_NET.21 agent --server "https://$LAB_NET.11:6443" --token "$(cat "$LAB/hosts/bs/data/server/node-token")" \
        --data-dir @DATA@ --config $LAB/config.yaml --node-name ba --node-ip $LAB_NET.21 \
        --container-runtime-endpoint "$LAB/hosts/ba/containerd/containerd.sock" --cgroup-root /$LAB_CGROUP/ba "${NODE_ARGS[@]}"
    host_off bn
    host_up ba
    wait_for 90 "the agent's node (log: $LAB/hosts/ba/trireme.log)" footprint_nodes bs
    footprint_measure "$out" bs ba
    footprint_row "$out/bs" 'server of one agent' 100
    footprint_row "$out/ba" 'agent' 40
    host_off bs
    host_off ba
    footprint_three
    footprint_measure "$out" b1 b2
    footprint_row "$out/b1" 'leader of three' 100
    footprint_row "$out/b2" 'follower' 100
    printf 'targets: CPU 1 %% of a core (goal 0.5, agent 0.2), 2 fsync/s. wakes: voluntary context switches of all threads.\n'
    rm -r "$out"
}

# footprint_three: three servers without nodes; the first makes the cluster, and leads it
footprint_three() {
    local n join=(--cluster-init)
    for n in 1 2 3; do
        host_add b$n $LAB_NET.3$n server "${join[@]}" --token bench-of-trireme --disable-agent --data-dir @DATA@ --config "$LAB/config.yaml" \
            --node-name b$n --node-ip $LAB_NET.3$n --write-kubeconfig @DATA@/kubeconfig.yaml
        host_up b$n
        wait_for 60 "server b$n (log: $LAB/hosts/b$n/trireme.log)" kubectl_on b$n get --raw /readyz
        join=(--server "https://$LAB_NET.31:6443")
    done
}

# footprint_measure OUT HOST...: writes OUT/HOST, after a rest: rss anon cpu% wakes/s fsync/s kB/min threads
footprint_measure() {
    local out=$1 host pid; shift
    footprint_wait "resting" "$FOOTPRINT_SETTLE"
    for host in "$@"; do
        pid=$(host_pid "$host" trireme) || die "trireme of host $host does not run (log: $LAB/hosts/$host/trireme.log)"
        echo "$pid" > "$out/$host.pid"
        counters "$pid" > "$out/$host.before"
    done
    footprint_wait "measuring $*" "$FOOTPRINT_SECONDS"
    for host in "$@"; do counters "$(cat "$out/$host.pid")" > "$out/$host.after"; done
    # Traced afterwards: strace stops the process at every call and would spoil the other figures.
    say "counting syncs, $((FOOTPRINT_SECONDS / 2)) s"
    for host in "$@"; do
        timeout -s INT "$((FOOTPRINT_SECONDS / 2))" strace -qq -f -e trace=fsync,fdatasync,sync_file_range,msync,sync,syncfs \
            -e signal=none -o "$out/$host.trace" -p "$(cat "$out/$host.pid")" 2> /dev/null &
    done
    wait
    for host in "$@"; do
        pid=$(cat "$out/$host.pid")
        awk -v seconds="$FOOTPRINT_SECONDS" -v hz="$(getconf CLK_TCK)" -v syncs="$(grep -c 'sync.*(.*' "$out/$host.trace" || true)" '
            FNR == NR {cpu = $1; wakes = $2; written = $3; next}
            {printf "%.1f %.1f %.2f %.0f %.2f %.0f %d\n", $4 / 1024, $5 / 1024, ($1 - cpu) / hz / seconds * 100, ($2 - wakes) / seconds,
                syncs / int(seconds / 2), ($3 - written) / 1000 / seconds * 60, $6}' "$out/$host.before" "$out/$host.after" > "$out/$host"
    done
}

# counters PID: CPU ticks, voluntary switches, bytes sent to the disk, RSS kB, anonymous kB, threads
counters() {
    local ticks wakes
    ticks=$(awk '{sub(/.*\) /, ""); print $12 + $13}' "/proc/$1/stat")
    wakes=$(cat /proc/"$1"/task/*/status 2> /dev/null | awk '/^voluntary_ctxt/ {n += $2} END {print n}')
    printf '%s %s %s ' "$ticks" "$wakes" "$(awk '/^write_bytes/ {print $2}' "/proc/$1/io")"
    awk '/^VmRSS/ {r = $2} /^RssAnon/ {a = $2} /^Threads/ {t = $2} END {print r, a, t}' "/proc/$1/status"
}

# footprint_row FILE TITLE RSS_TARGET
footprint_row() {
    local rss anon cpu wakes syncs written threads
    read -r rss anon cpu wakes syncs written threads < "$1"
    printf '%-22s %9.1f %7.1f %8s %7.2f %8d %7.2f %7d %9d  %s\n' "$2" "$rss" "$anon" "$3" "$cpu" "$wakes" "$syncs" "$written" "$threads" \
        "$(verdict "$rss" "$3") $(verdict "$cpu" 1) $(verdict "$syncs" 2)"
}

# footprint_wait WHAT SECONDS: says every ten seconds how long it still takes
footprint_wait() {
    local left=$2 step
    while [ "$left" -gt 0 ]; do
        say "$1, $left s"
        step=$((left < 10 ? left : 10))
        sleep "$step"
        left=$((left - step))
    done
}
