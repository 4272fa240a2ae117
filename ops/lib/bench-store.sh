# ops/bench store: the store against Debian's etcd, three members each on loopback, in alternating rounds. Sourced by ops/bench.
#
# The same generator (tests/bench) speaks the same protocol over mutual TLS to the leader of either, and both sync what they
# acknowledge: the syncs of a further run are counted with strace. The generator runs on the same machine; CPU seconds are those of
# the servers alone. Trireme's servers are whole servers (API server, controllers, scheduler), etcd's are etcd.

STORE_ROUNDS=7
STORE_SECONDS=5
# load, clients, ratio that is aimed at, title
STORE_CASES=('put 1 2 writes, 1 client' 'put 64 2 writes, 64 clients' 'put 1000 2 writes, 1,000 clients'
    'get 64 3 linearizable reads, 64 clients' 'watch 100 2 events to 100 watchers')

bench_store() {
    [ -z "${rounds:-}" ] || STORE_ROUNDS=$rounds
    [ -z "${seconds:-}" ] || STORE_SECONDS=$seconds
    STORE_DIR=$LAB/store
    [ -x /usr/bin/etcd ] || apt_install etcd-server
    [ -x /usr/bin/etcdctl ] || apt_install etcd-client
    have openssl strace || apt_install openssl strace
    if [ -n "${TRIREME_GENERATOR:-}" ]; then GENERATOR=$TRIREME_GENERATOR; else store_generator; fi
    bench_header "store: three members on loopback, mutual TLS, values of 256 B, $STORE_ROUNDS rounds of $STORE_SECONDS s each in turn"
    trap store_clean EXIT
    store_begin
    local out; out=$(mktemp)
    store_rounds "$out"
    store_table "$out"
    store_syncs
    rm -f "$out"
    trap - EXIT
    store_clean
}

store_generator() {
    say "building the load generator"
    (cd "$REPO" && cargo build --quiet --release -p trireme-bench)
    GENERATOR=$CARGO_TARGET_DIR/release/trireme-bench
}

store_clean() {
    local pid
    for pid in ${STORE_PIDS//,/ } ${ETCD_PIDS//,/ }; do kill -KILL "$pid" 2> /dev/null || true; done
    rm -rf "${STORE_DIR:?}"
}

store_begin() {
    STORE_PIDS='' ETCD_PIDS=''
    rm -rf "$STORE_DIR"
    mkdir -p "$STORE_DIR"
    echo "{}" > "$STORE_DIR/config.yaml"
    store_trireme
    store_etcd
}

# store_trireme: three servers; sets STORE_PIDS, and STORE_TLS for the generator
store_trireme() {
    local n join=(--cluster-init) tls=$STORE_DIR/1/server/tls/etcd
    for n in 1 2 3; do
        "$BINARY" server "${join[@]}" --token bench-of-trireme --disable-agent --data-dir "$STORE_DIR/$n" --config "$STORE_DIR/config.yaml" \
            --node-name "s$n" --node-ip "127.0.22.$n" --bind-address "127.0.22.$n" --tls-san localhost --write-kubeconfig "$STORE_DIR/$n.kubeconfig" \
            > "$STORE_DIR/$n.log" 2>&1 &
        STORE_PIDS=$STORE_PIDS${STORE_PIDS:+,}$!
        wait_for 60 "server $n (log: $STORE_DIR/$n.log)" \
            sh -c "[ \"\$(curl -sk -o /dev/null -w '%{http_code}' https://127.0.22.$n:6443/readyz)\" = 200 ]"
        join=(--server https://127.0.22.1:6443)
    done
    STORE_TLS=(--ca "$tls/ca.crt" --cert "$tls/client.crt" --key "$tls/client.key")
}

# store_etcd: three members, with certificates of an authority of their own; sets ETCD_PIDS and ETCD_TLS
store_etcd() {
    local n cluster='' pki=$STORE_DIR/pki
    mkdir -p "$pki"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bench -keyout "$pki/ca.key" -out "$pki/ca.crt" 2> /dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=etcd -keyout "$pki/etcd.key" -out "$pki/etcd.csr" 2> /dev/null
    printf 'subjectAltName=DNS:localhost,IP:127.0.23.1,IP:127.0.23.2,IP:127.0.23.3\nextendedKeyUsage=serverAuth,clientAuth\n' > "$pki/ext"
    openssl x509 -req -in "$pki/etcd.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -days 2 -extfile "$pki/ext" -out "$pki/etcd.crt" 2> /dev/null
    for n in 1 2 3; do cluster=$cluster${cluster:+,}e$n=https://127.0.23.$n:2380; done
    for n in 1 2 3; do
        /usr/bin/etcd --name "e$n" --data-dir "$STORE_DIR/e$n" --initial-cluster "$cluster" --initial-cluster-token bench \
            --listen-peer-urls "https://127.0.23.$n:2380" --initial-advertise-peer-urls "https://127.0.23.$n:2380" \
            --listen-client-urls "https://127.0.23.$n:2379" --advertise-client-urls "https://127.0.23.$n:2379" \
            --cert-file "$pki/etcd.crt" --key-file "$pki/etcd.key" --trusted-ca-file "$pki/ca.crt" --client-cert-auth \
            --peer-cert-file "$pki/etcd.crt" --peer-key-file "$pki/etcd.key" --peer-trusted-ca-file "$pki/ca.crt" --peer-client-cert-auth \
            > "$STORE_DIR/e$n.log" 2>&1 &
        ETCD_PIDS=$ETCD_PIDS${ETCD_PIDS:+,}$!
    done
    ETCD_TLS=(--ca "$pki/ca.crt" --cert "$pki/etcd.crt" --key "$pki/etcd.key")
    wait_for 60 "etcd (log: $STORE_DIR/e1.log)" store_leader etcd
}

# store_leader KIND: the URL of the member that leads
store_leader() {
    local net=22 tls=("${STORE_TLS[@]}") urls n
    if [ "$1" = etcd ]; then net=23 tls=("${ETCD_TLS[@]}"); fi
    for n in 1 2 3; do urls=${urls:-}${urls:+,}https://127.0.$net.$n:2379; done
    # Fields of endpoint status: endpoint, id, version, size, leader, ...
    ETCDCTL_API=3 etcdctl --endpoints "$urls" --cacert "${tls[1]}" --cert "${tls[3]}" --key "${tls[5]}" endpoint status 2> /dev/null |
        awk -F', ' '$5 == "true" {print $1; found = 1; exit} END {exit !found}'
}

# store_run KIND LOAD CLIENTS: one run; prints the generator's line behind "KIND"
store_run() {
    local tls=("${STORE_TLS[@]}") pids=$STORE_PIDS leader
    if [ "$1" = etcd ]; then tls=("${ETCD_TLS[@]}") pids=$ETCD_PIDS; fi
    leader=$(store_leader "$1") || die "$1 has no leader (logs: $STORE_DIR)"
    printf '%s\t' "$1"
    "$GENERATOR" store --load "$2" --clients "$3" --seconds "$STORE_SECONDS" --endpoints "$leader" --pids "$pids" "${tls[@]}"
}

store_rounds() {
    local round load clients
    for round in $(seq 1 "$STORE_ROUNDS"); do
        say "round $round of $STORE_ROUNDS"
        while read -r load clients _; do
            store_run etcd "$load" "$clients" >> "$1"
            store_run trireme "$load" "$clients" >> "$1"
        done < <(printf '%s\n' "${STORE_CASES[@]}")
    done
}

# store_field FILE KIND LOAD CLIENTS COLUMN: median, least, greatest
store_field() {
    awk -F'\t' -v k="$2" -v l="$3" -v n="$4" -v c="$5" '$1 == k && tolower($2) == l && $3 == n {print $c}' "$1" | sort -n |
        awk '{v[NR] = $1} END {m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2; print m, v[1], v[NR]}'
}

# Columns of a line: kind, load, clients, operations, per second, p50, p99, CPU seconds per 10,000, errors
store_table() {
    local load clients goal title kind rate low high p50 p99 cpu errors etcd_rate
    printf '%-30s %-7s %7s %13s %8s %8s %6s %6s\n' 'median of the rounds' '' 'per s' range 'p50 ms' 'p99 ms' 'CPU s*' ratio
    while read -r load clients goal title; do
        for kind in etcd trireme; do
            read -r rate low high < <(store_field "$1" $kind "$load" "$clients" 5)
            read -r p50 _ < <(store_field "$1" $kind "$load" "$clients" 6)
            read -r p99 _ < <(store_field "$1" $kind "$load" "$clients" 7)
            read -r cpu _ < <(store_field "$1" $kind "$load" "$clients" 8)
            read -r _ _ errors < <(store_field "$1" $kind "$load" "$clients" 9)
            [ "$errors" = 0 ] || printf 'up to %s failed requests in a round: ' "$errors"
            if [ $kind = etcd ]; then
                etcd_rate=$rate
                printf '%-30s %-7s %7.0f %13s %8.2f %8.2f %6.2f\n' "$title" $kind "$rate" "$low..$high" "$p50" "$p99" "$cpu"
            else
                printf '%-30s %-7s %7.0f %13s %8.2f %8.2f %6.2f %5.2fx goal %sx\n' '' $kind "$rate" "$low..$high" "$p50" "$p99" "$cpu" \
                    "$(awk -v a="$rate" -v b="$etcd_rate" 'BEGIN {print (b > 0) ? a / b : 0}')" "$goal"
            fi
        done
    done < <(printf '%s\n' "${STORE_CASES[@]}")
    printf '* CPU seconds of the three servers for 10,000 operations\n'
}

# store_syncs: how many syncs stand behind the writes of 64 clients; strace slows both down, so only the counts say something
store_syncs() {
    local kind pid pids calls line puts
    printf '\nsyncs under 64 writing clients, all three members (strace):\n'
    for kind in etcd trireme; do
        pids=$STORE_PIDS
        [ $kind = trireme ] || pids=$ETCD_PIDS
        for pid in ${pids//,/ }; do
            timeout -s INT $((STORE_SECONDS + 1)) strace -qq -f -e trace=fsync,fdatasync,sync_file_range,msync -e signal=none -o "$STORE_DIR/$pid.trace" -p "$pid" 2> /dev/null &
        done
        line=$(store_run $kind put 64)
        wait $(jobs -rp | grep -vxF "$(tr , '\n' <<< "$STORE_PIDS,$ETCD_PIDS")") 2> /dev/null || true
        calls=$(for pid in ${pids//,/ }; do cat "$STORE_DIR/$pid.trace"; done | grep -cE '(fsync|fdatasync)\(' || true)
        puts=$(cut -f4 <<< "$line")
        printf '%-8s %8s syncs, %8s writes\n' $kind "$calls" "$puts"
    done
}
