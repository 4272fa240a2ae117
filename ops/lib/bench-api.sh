# ops/bench api, watch, scale: one API server on loopback, without a node. Sourced by ops/bench.
#
# The generator (tests/bench) speaks HTTPS as the administrator of the kubeconfig that the server writes, and runs on the same machine. CPU and
# memory are those of the server alone. Each benchmark has a server and a data directory of its own.

API_ADDRESS=127.0.24.1

bench_api() { api_run 'requests and lists of one server over HTTPS' api; }

bench_watch() { api_run 'watches of one server over HTTPS' watch; }

bench_scale() { api_run 'nodes and pods of one server' scale --nodes "${nodes:-500}"; }

# api_run TITLE COMMAND...: a server, and the generator's command against it
api_run() {
    local title=$1; shift
    API_DIR=$LAB/$1 API_PID=''
    if [ -n "${TRIREME_GENERATOR:-}" ]; then GENERATOR=$TRIREME_GENERATOR; else store_generator; fi
    bench_header "$title"
    # A thousand watchers have a thousand connections.
    ulimit -n 65536 2> /dev/null || true
    trap api_clean EXIT
    api_begin
    "$GENERATOR" "$@" --kubeconfig "$API_DIR/kubeconfig" --pids "$API_PID" || die "the benchmark did not end (log of the server: $API_DIR.log)"
    trap - EXIT
    api_clean
    rm -f "$API_DIR.log"
}

# The network of the pods has room for 8,192 nodes.
api_begin() {
    rm -rf "$API_DIR"
    mkdir -p "$API_DIR"
    echo "{}" > "$API_DIR/config.yaml"
    "$BINARY" server --cluster-init --disable-agent --data-dir "$API_DIR/data" --config "$API_DIR/config.yaml" \
        --cluster-cidr 10.0.0.0/11 --node-name bench --node-ip "$API_ADDRESS" --bind-address "$API_ADDRESS" --write-kubeconfig "$API_DIR/kubeconfig" > "$API_DIR.log" 2>&1 &
    API_PID=$!
    wait_for 60 "the server (log: $API_DIR.log)" \
        sh -c "[ \"\$(curl -sk -o /dev/null -w '%{http_code}' https://$API_ADDRESS:6443/readyz)\" = 200 ]"
}

api_clean() {
    [ -z "$API_PID" ] || { kill -KILL "$API_PID" && wait "$API_PID"; } 2> /dev/null || true
    rm -rf "${API_DIR:?}"
}
