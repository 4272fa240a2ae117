# ops/bench failover: how long writes and the scheduler stand still when the leader of three goes. Sourced by ops/bench.
#
# Three servers without nodes on loopback. A round kills the leader with SIGKILL and, in the same moment, asks a survivor for a
# write; what counts is the time until that is acknowledged. A further pod is then waited for until it is bound (to a node that
# is only a record: nothing runs it). The dead server is started again before the next round. In rounds of orderly hand-over the
# leader gets SIGTERM while a survivor is asked for one write after the other: the longest of them counts.

FAILOVER_ROUNDS=20
FAILOVER_LIMIT=30

bench_failover() {
    [ -z "${rounds:-}" ] || FAILOVER_ROUNDS=$rounds
    FAILOVER_DIR=$LAB/failover
    bench_header "failover: 3 servers on loopback, $FAILOVER_ROUNDS rounds of each kind"
    trap failover_clean EXIT
    failover_begin
    local out round; out=$(mktemp)
    for round in $(seq 1 "$FAILOVER_ROUNDS"); do
        failover_round kill "$round" >> "$out"
        say "round $round: $(grep -c '^write' "$out") kills, last $(tail -n 2 "$out" | tr '\n' ' ')"
    done
    for round in $(seq 1 "$FAILOVER_ROUNDS"); do
        failover_round stop "$round" >> "$out"
    done
    printf '%-58s %7s %7s %7s %7s\n' 'milliseconds' p50 p99 max target
    failover_row "$out" write 'leader killed -> next acknowledged API write' 500
    failover_row "$out" bound 'leader killed -> a new pod is bound' 3000
    failover_row "$out" gap 'leader stopped -> longest API write meanwhile' 50
    printf 'targets are of p50; write: p99 1500. A write without a failover takes %s ms here.\n' "$(failover_percentile "$out" plain 0.5)"
    rm -f "$out"
    trap - EXIT
    failover_clean
}

failover_clean() {
    local pid
    for pid in "${FAILOVER_PIDS[@]}"; do kill -KILL "$pid" 2> /dev/null || true; done
    rm -rf "${FAILOVER_DIR:?}"
}

# failover_row FILE KIND TITLE TARGET
failover_row() {
    local p50; p50=$(failover_percentile "$1" "$2" 0.5)
    printf '%-58s %7s %7s %7s %7s  %s\n' "$3" "$p50" "$(failover_percentile "$1" "$2" 0.99)" "$(failover_percentile "$1" "$2" 1)" "$4" "$(verdict "$p50" "$4")"
}

# failover_percentile FILE KIND SHARE: of the nearest rank
failover_percentile() {
    awk -v kind="$2" '$1 == kind {print $2}' "$1" | sort -n | awk -v p="$3" '{v[NR] = $1} END {r = int(NR * p); if (r < NR * p) r++; print v[r]}'
}

failover_begin() {
    local n
    FAILOVER_PIDS=(0 0 0 0)
    unset 'FAILOVER_PIDS[0]'
    rm -rf "$FAILOVER_DIR"
    mkdir -p "$FAILOVER_DIR"
    echo "{}" > "$FAILOVER_DIR/config.yaml"
    for n in 1 2 3; do failover_start $n; done
    # A learner replaces no voter.
    wait_for 30 "three voters" failover_voters
    # Pods need the service account that is made for them.
    wait_for 30 "the default service account" failover_account
}

# failover_start N: starts (again) server N and waits until it is ready
failover_start() {
    local n=$1 join=(--cluster-init)
    [ "$n" = 1 ] || join=(--server https://127.0.22.1:6443)
    [ ! -d "$FAILOVER_DIR/$n" ] || join=()
    "$BINARY" server "${join[@]}" --token bench-of-trireme --disable-agent --data-dir "$FAILOVER_DIR/$n" --config "$FAILOVER_DIR/config.yaml" \
        --node-name "f$n" --node-ip "127.0.22.$n" --bind-address "127.0.22.$n" --write-kubeconfig "$FAILOVER_DIR/$n.kubeconfig" \
        >> "$FAILOVER_DIR/$n.log" 2>&1 &
    FAILOVER_PIDS[n]=$!
    wait_for 60 "server $n (log: $FAILOVER_DIR/$n.log)" failover_ready "$n"
}

failover_ready() { [ -f "$FAILOVER_DIR/$1.kubeconfig" ] && [ "$(failover_ask "$1" GET /readyz -o /dev/null -w '%{http_code}')" = 200 ]; }

# failover_ask N METHOD PATH CURL_OPTIONS...: as the administrator, at server N
failover_ask() {
    local n=$1 method=$2 path=$3; shift 3
    [ -f "$FAILOVER_DIR/admin.crt" ] || failover_admin
    timeout "${FAILOVER_SECONDS:-10}" curl -s --cacert "$FAILOVER_DIR/ca.crt" --cert "$FAILOVER_DIR/admin.crt" --key "$FAILOVER_DIR/admin.key" \
        -X "$method" -H "Content-Type: ${FAILOVER_TYPE:-application/json}" "https://127.0.22.$n:6443$path" "$@"
}

# failover_admin: the administrator's files out of the first kubeconfig
failover_admin() {
    local field
    for field in ca.crt:certificate-authority-data admin.key:client-key-data admin.crt:client-certificate-data; do
        awk -v f="${field#*:}:" '$1 == f {print $2}' "$FAILOVER_DIR/1.kubeconfig" | base64 -d > "$FAILOVER_DIR/${field%%:*}"
    done
}

# failover_node N: at server N, a node that exists as a record and says that it is ready
failover_node() {
    local n=$1
    local status='{"capacity":{"cpu":"64","memory":"64Gi","pods":"10000"},"allocatable":{"cpu":"64","memory":"64Gi","pods":"10000"},'
    status+='"conditions":[{"type":"Ready","status":"True","reason":"Bench","message":"","lastHeartbeatTime":"'$(date -u +%FT%TZ)'","lastTransitionTime":"'$(date -u +%FT%TZ)'"}]}'
    failover_ask "$n" POST /api/v1/nodes -o /dev/null -d '{"apiVersion":"v1","kind":"Node","metadata":{"name":"record"}}'
    FAILOVER_TYPE=application/merge-patch+json failover_ask "$n" PATCH /api/v1/nodes/record/status -o /dev/null -d "{\"status\":$status}"
}

failover_voters() { [ "$("$BINARY" member list --kubeconfig "$FAILOVER_DIR/1.kubeconfig" -o json | grep -oE '"role": *"(voter|leader)"' | wc -l)" = 3 ]; }

failover_account() { failover_ask 1 GET /api/v1/namespaces/default/serviceaccounts/default | grep -q '"uid"'; }

# failover_leader: the number of the server that leads
failover_leader() {
    local n holder
    for n in 1 2 3; do
        holder=$(failover_ask $n GET /apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-scheduler 2> /dev/null | sed -n 's/.*"holderIdentity":"f\([1-3]\)[^"]*".*/\1/p')
        [ -z "$holder" ] || { echo "$holder"; return; }
    done
    return 1
}

now_ms() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }

# failover_write N: one write at server N, until it is acknowledged
failover_write() {
    local end=$((SECONDS + FAILOVER_LIMIT))
    until [ "$(failover_ask "$1" POST /api/v1/namespaces/default/configmaps -o /dev/null -w '%{http_code}' \
        -d '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"failover-"}}')" = 201 ]; do
        [ $SECONDS -lt $end ] || die "server $1 took no write for $FAILOVER_LIMIT s (log: $FAILOVER_DIR/$1.log)"
        sleep 0.005
    done
}

# failover_round KIND ROUND: prints "plain MS", and "write MS" and "bound MS", or "gap MS"
failover_round() {
    local kind=$1 round=$2 leader survivor began
    failover_node 1
    leader=$(failover_leader) || die "the scheduler's lease has no holder"
    survivor=$((leader % 3 + 1))
    began=$(now_ms)
    failover_write $survivor
    echo "plain $(($(now_ms) - began))"
    if [ "$kind" = kill ]; then
        began=$(now_ms)
        kill -KILL "${FAILOVER_PIDS[leader]}"
        failover_write $survivor
        echo "write $(($(now_ms) - began))"
        failover_bound $survivor "kill-$round"
        echo "bound $(($(now_ms) - began))"
    else
        failover_gap $survivor "${FAILOVER_PIDS[leader]}"
    fi
    wait "${FAILOVER_PIDS[leader]}" 2> /dev/null || true
    failover_start "$leader"
    # The lease object names the next leader when that has taken over.
    wait_for 30 "a new holder of the scheduler's lease" failover_other "$leader"
}

failover_other() { local now; now=$(failover_leader) && [ "$now" != "$1" ]; }

# failover_bound N NAME: makes a pod at server N and waits until it has a node
failover_bound() {
    local pod='{"apiVersion":"v1","kind":"Pod","metadata":{"name":"'$2'"},"spec":{"containers":[{"name":"c","image":"none"}],"tolerations":[{"operator":"Exists"}]}}'
    local end=$((SECONDS + FAILOVER_LIMIT))
    until [ "$(failover_ask "$1" POST /api/v1/namespaces/default/pods -o /dev/null -w '%{http_code}' -d "$pod")" = 201 ] || [ $SECONDS -ge $end ]; do sleep 0.01; done
    until failover_ask "$1" GET "/api/v1/namespaces/default/pods/$2" | grep -q '"nodeName":"record"'; do
        [ $SECONDS -lt $end ] || die "pod $2 was not bound within $FAILOVER_LIMIT s (log: $FAILOVER_DIR/$1.log)"
        sleep 0.01
    done
}

# failover_gap N PID: writes one after the other at server N, over one connection, for two seconds; in the middle PID gets SIGTERM. The
# longest write is the gap; a write that fails ends the benchmark.
failover_gap() {
    local answers failed
    (sleep 0.5; kill -TERM "$2") &
    answers=$(FAILOVER_SECONDS=2 failover_ask "$1" POST "/api/v1/namespaces/default/configmaps?fieldManager=bench-[1-100000]" -o /dev/null \
        -w '%{stderr}%{http_code} %{time_total}\n' -d '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"failover-"}}' 2>&1) || true
    [ "$(wc -l <<< "$answers")" -gt 3 ] || die "server $1 took hardly a write while the leader stopped in order: $answers"
    failed=$(awk '$1 != 201 && $1 != "000"' <<< "$answers")
    [ -z "$failed" ] || die "writes failed while the leader stopped in order: $failed"
    # The last one was cut off by the end of the time.
    awk '$1 == 201 && $2 > m {m = $2} END {printf "gap %d\n", m * 1000}' <<< "$answers"
}
