# ops/bench start: from exec to a /readyz that answers 200. Sourced by ops/bench.

START_ROUNDS=7
START_LIMIT=30

bench_start() {
    [ -z "${rounds:-}" ] || START_ROUNDS=$rounds
    bench_header "start: from exec to /readyz, one server without a node, $START_ROUNDS rounds"
    local out; out=$(mktemp)
    # A network of its own: the ports are free whatever else runs here, and nothing has to be cleaned up.
    unshare --net --mount --pid --fork --kill-child --mount-proc bash -c '. "$1/ops/lib/bench-start.sh"; start_rounds "$2" "$3" "$4"' \
        bench "$REPO" "$BINARY" "$START_ROUNDS" "$LAB/start" > "$out" || { cat "$out" >&2; rm -f "$out"; die "a server did not start (log: $LAB/start/log)"; }
    printf '%-34s %8s %16s %8s %12s\n' 'data directory' 'median' 'range' 'target' 'CPU, median'
    start_row "$out" empty 'empty' 2.00
    start_row "$out" existing 'existing, stopped in order' 1.00
    start_row "$out" killed 'existing, killed with SIGKILL' 1.00
    rm -f "$out"
    rm -rf "${LAB:?}/start"
}

# start_row FILE KIND TITLE TARGET
start_row() {
    local median low high cpu
    read -r median low high < <(median_of "$1" "$2" 2)
    read -r cpu _ < <(median_of "$1" "$2" 3)
    printf '%-34s %7.2fs %6.2fs .. %5.2fs %7.2fs %11.2fs  %s\n' "$3" "$median" "$low" "$high" "$4" "$cpu" "$(verdict "$median" "$4")"
}

# start_rounds BINARY ROUNDS DIR: runs inside the namespaces; prints "KIND SECONDS CPU_SECONDS" for each start
start_rounds() {
    local binary=$1 rounds=$2 dir=$3 round
    set -eu
    ip link set lo up
    ip link add bench0 type veth peer name bench1 && ip link set bench1 up && ip link set bench0 up && ip addr add 192.0.2.1/24 dev bench0
    mkdir -p "$dir" && echo "{}" > "$dir/config.yaml"
    for round in $(seq 1 "$rounds"); do
        rm -rf "$dir/data"
        start_once empty TERM
        start_once existing KILL
        start_once killed TERM
    done
}

start_once() {
    local kind=$1 signal=$2 began now pid
    began=$EPOCHREALTIME
    "$binary" server --cluster-init --disable-agent --data-dir "$dir/data" --config "$dir/config.yaml" --node-name bench --node-ip 192.0.2.1 \
        --write-kubeconfig "$dir/kubeconfig.yaml" > "$dir/log" 2>&1 &
    pid=$!
    until [ "$(curl -sk --max-time 2 -o /dev/null -w '%{http_code}' https://127.0.0.1:6443/readyz)" = 200 ]; do
        [ -d "/proc/$pid" ] || { echo "the server ended:"; tail -n 3 "$dir/log"; return 1; }
        awk -v a="$began" -v b="$EPOCHREALTIME" -v l="$START_LIMIT" 'BEGIN {exit !(b - a < l)}' || { echo "no /readyz within $START_LIMIT s"; kill -KILL "$pid"; return 1; }
        sleep 0.005
    done
    now=$EPOCHREALTIME
    awk -v kind="$kind" -v a="$began" -v b="$now" -v hz="$(getconf CLK_TCK)" '{sub(/.*\) /, ""); printf "%s %.3f %.2f\n", kind, b - a, ($12 + $13) / hz}' "/proc/$pid/stat"
    kill -"$signal" "$pid"
    wait "$pid" 2> /dev/null || true
}
