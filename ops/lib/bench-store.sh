# ops/bench store: the store against Debian's etcd, three members each on loopback, in alternating rounds. Sourced by ops/bench.
#
# Both speak the same protocol to the same generator (tests/bench) over mutual TLS with the same certificates, and sync what they
# acknowledge; the syncs of one further run are counted with strace.

STORE_ROUNDS=7
STORE_SECONDS=5
STORE_DIR=$LAB/store
# What is measured: load, clients, title, the least ratio that is aimed at
STORE_CASES=("put 1 2 writes,_1_client" "put 64 2 writes,_64_clients" "put 1000 2 writes,_1,000_clients" "get 64 3 linearizable_reads,_64_clients" \
    "watch 100 2 events_to_100_watchers")

bench_store() {
    [ -z "${rounds:-}" ] || STORE_ROUNDS=$rounds
    [ -z "${seconds:-}" ] || STORE_SECONDS=$seconds
    [ -x /usr/bin/etcd ] || apt_install etcd-server
    have strace || apt_install strace
    say "building the load generator"
    (cd "$REPO" && cargo build -q --release -p trireme-bench)
    GENERATOR=$(dirname "$BINARY")/trireme-bench
    [ -x "$GENERATOR" ] || GENERATOR=$(cd "$REPO" && cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/trireme-bench
    bench_header "store: 3 members on loopback, mutual TLS, values of 256 B, $STORE_ROUNDS rounds of $STORE_SECONDS s each, in turn"
    trap store_stop EXIT
    store_start
    local out; out=$(mktemp)
    store_rounds > "$out"
    store_table "$out"
    store_syncs
    trap - EXIT
    store_stop
    rm -f "$out"
}

# store_start: three Trireme servers, then three etcd members with the same certificates
store_start() {
    local n join=(--cluster-init) tls cluster=''
    rm -rf "$STORE_DIR"
    mkdir -p "$STORE_DIR"
    echo "{}" > "$STORE_DIR/config.yaml"
    TRIREME_PIDS='' ETCD_PIDS=''
    for n in 1 2 3; do
        "$BINARY" server "${join[@]}" --token bench-of-trireme --disable-agent --data-dir "$STORE_DIR/t$n" --config "$STORE_DIR/config.yaml" \
            --node-name "t$n" --node-ip "127.0.22.$n" --bind-address "127.0.22.$n" --write-kubeconfig "$STORE_DIR/t$n.kubeconfig" \
            --etcd-port 2379 > "$STORE_DIR/t$n.log" 2>&1 &
        TRIREME_PIDS=$TRIREME_PIDS${TRIREME_PIDS:+,}$!
        wait_for 60 "server t$n (log: $STORE_DIR/t$n.log)" kubectl --kubeconfig "$STORE_DIR/t$n.kubeconfig" --server "https://127.0.22.$n:6443" get --raw /readyz
        join=(--server "https://127.0.22.1:6443")
    done
}
