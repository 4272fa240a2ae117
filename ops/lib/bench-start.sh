# ops/bench start: from exec to a /readyz that answers 200. Sourced by ops/bench.

START_ROUNDS=7
START_LIMIT=30
START_OBJECTS=100000
START_WRITERS=64

bench_start() {
    [ -z "${rounds:-}" ] || START_ROUNDS=$rounds
    bench_header "start: from exec to /readyz, servers without nodes, $START_ROUNDS rounds"
    local out; out=$(mktemp)
    say "$START_ROUNDS rounds of each kind, and $START_OBJECTS objects to be made: some minutes"
    # A network of its own: the ports are free whatever else runs here, and nothing has to be cleaned up.
    unshare --net --mount --pid --fork --kill-child --mount-proc bash -c '. "$1/ops/lib/bench-start.sh"; start_rounds "$2" "$3" "$4" "$5"' \
        bench "$REPO" "$BINARY" "$START_ROUNDS" "$LAB/start" "$START_OBJECTS" > "$out" || { cat "$out" >&2; rm -f "$out"; die "a server did not start (log: $LAB/start/log)"; }
    printf '%-34s %8s %16s %8s %12s\n' 'data directory' 'median' 'range' 'target' 'CPU, median'
    start_row "$out" empty 'empty' 2.00
    start_row "$out" existing 'existing, stopped in order' 1.00
    start_row "$out" killed 'existing, killed with SIGKILL' 1.00
    start_row "$out" objects '100,000 objects, stopped in order' 3.00
    start_row "$out" objects-killed '100,000 objects, killed' 3.00
    start_row "$out" three 'three servers at once, empty' 5.00
    start_row "$out" three-again 'three servers at once, existing' 5.00
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

# start_rounds BINARY ROUNDS DIR OBJECTS: runs inside the namespaces; prints "KIND SECONDS CPU_SECONDS" for each start
start_rounds() {
    local binary=$1 rounds=$2 dir=$3 objects=$4 round n
    set -eu
    ip link set lo up
    ip link add bench0 type veth peer name bench1 && ip link set bench1 up && ip link set bench0 up && ip addr add 192.0.2.1/24 dev bench0
    for n in 1 2 3; do ip addr add 192.0.2.1$n/24 dev bench0; done
    mkdir -p "$dir" && echo "{}" > "$dir/config.yaml"
    for round in $(seq 1 "$rounds"); do
        rm -rf "$dir/data"
        start_once empty TERM
        start_once existing KILL
        start_once killed TERM
    done
    start_fill
    for round in $(seq 1 "$rounds"); do
        start_once objects KILL
        start_once objects-killed TERM
    done
    rm -rf "$dir/data"
    for round in $(seq 1 "$rounds"); do
        rm -rf "$dir"/three-*
        start_three three
        start_three three-again
    done
}

# start_server DIR NAME ADDRESS OPTIONS...: in the background
start_server() {
    local data=$1 name=$2 address=$3; shift 3
    "$binary" server "$@" --disable-agent --data-dir "$data" --config "$dir/config.yaml" --node-name "$name" --node-ip "$address" \
        --write-kubeconfig "$dir/$name.yaml" >> "$dir/log" 2>&1 &
}

# start_ready ADDRESS
start_ready() { [ "$(curl -sk --max-time 2 -o /dev/null -w '%{http_code}' "https://$1:6443/readyz")" = 200 ]; }

# start_wait BEGAN ADDRESS PID: until it is ready
start_wait() {
    until start_ready "$2"; do
        [ -d "/proc/$3" ] || { echo "the server ended:"; tail -n 3 "$dir/log"; return 1; }
        awk -v a="$1" -v b="$EPOCHREALTIME" -v l="$START_LIMIT" 'BEGIN {exit !(b - a < l)}' || { echo "no /readyz within $START_LIMIT s"; return 1; }
        sleep 0.005
    done
}

# start_print KIND BEGAN PID...: the time since BEGAN, and the CPU time of all
start_print() {
    local kind=$1 began=$2 now=$EPOCHREALTIME pid; shift 2
    for pid in "$@"; do cat "/proc/$pid/stat"; done |
        awk -v kind="$kind" -v a="$began" -v b="$now" -v hz="$(getconf CLK_TCK)" '{sub(/.*\) /, ""); n += $12 + $13} END {printf "%s %.3f %.2f\n", kind, b - a, n / hz}'
}

start_once() {
    local kind=$1 signal=$2 began=$EPOCHREALTIME pid
    start_server "$dir/data" bench 192.0.2.1 --cluster-init
    pid=$!
    start_wait "$began" 127.0.0.1 "$pid"
    start_print "$kind" "$began" "$pid"
    kill -"$signal" "$pid"
    wait "$pid" 2> /dev/null || true
}

# start_fill: ConfigMaps of some hundred bytes, by the administrator of the server that was stopped last
start_fill() {
    local pid field body
    start_server "$dir/data" bench 192.0.2.1
    pid=$!
    start_wait "$EPOCHREALTIME" 127.0.0.1 "$pid"
    for field in ca.crt:certificate-authority-data admin.key:client-key-data admin.crt:client-certificate-data; do
        awk -v f="${field#*:}:" '$1 == f {print $2}' "$dir/bench.yaml" | base64 -d > "$dir/${field%%:*}"
    done
    body=$(head -c 180 /dev/urandom | base64 -w 0)
    curl -s --no-progress-meter --cacert "$dir/ca.crt" --cert "$dir/admin.crt" --key "$dir/admin.key" -Z --parallel-max "$START_WRITERS" -o /dev/null \
        -X POST -H 'Content-Type: application/json' -d '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"object-"},"data":{"of":"'"$body"'"}}' \
        "https://127.0.0.1:6443/api/v1/namespaces/default/configmaps?fieldManager=bench-[1-$objects]" 2> /dev/null
    kill -TERM "$pid"
    wait "$pid" 2> /dev/null || true
}

# start_three KIND: three servers in the same moment, until all of them are ready
start_three() {
    local kind=$1 n began=$EPOCHREALTIME pids=() join=(--cluster-init)
    for n in 1 2 3; do
        [ ! -d "$dir/three-$n" ] || join=()
        start_server "$dir/three-$n" "three-$n" "192.0.2.1$n" --token bench-of-trireme --bind-address "192.0.2.1$n" "${join[@]}"
        pids+=($!)
        join=(--server https://192.0.2.11:6443)
    done
    for n in 1 2 3; do start_wait "$began" "192.0.2.1$n" "${pids[n - 1]}"; done
    start_print "$kind" "$began" "${pids[@]}"
    kill -TERM "${pids[@]}"
    wait "${pids[@]}" 2> /dev/null || true
}
