# Several hosts on this machine: servers s1.., agents a1.., and with --vip the balancers lb1 and lb2. Sourced by ops/up.

LAB_KUBECONFIG=$LAB/kubeconfig.yaml

server_address() { echo "$LAB_NET.$((10 + $1))"; }
agent_address() { echo "$LAB_NET.$((20 + $1))"; }

# lab_up SERVERS AGENTS VIP: VIP is the balancers' address, or empty
lab_up() {
    local servers=$1 agents=$2 vip=$3 n token endpoint
    # A lab that is already up keeps its shape: with balancers or without.
    if [ -z "$vip" ] && [ -f "$LAB/hosts/lb1/address" ]; then vip=$LAB_VIP; fi
    if [ -n "$vip" ] && [ -f "$LAB/hosts/s1/command" ] && [ ! -f "$LAB/hosts/lb1/address" ]; then
        grep -qx -- "$vip" "$LAB/hosts/s1/command" || die "--vip: the servers are up without balancers; run ops/down first"
    fi
    mkdir -p "$LAB/hosts" "$LAB/bin"
    install -m 755 "$BINARY" "$LAB/bin/trireme.new" && mv "$LAB/bin/trireme.new" "$LAB/bin/trireme"
    token=$(lab_token)
    lab_switch
    # Where servers and nodes join: the balancers, if there are any.
    endpoint=https://${vip:-$(server_address 1)}:6443
    for n in $(seq 1 "$servers"); do
        if [ ! -f "$LAB/hosts/s$n/address" ]; then
            local join=(--cluster-init)
            if [ "$n" != 1 ]; then
                # The first server makes the cluster; the others join it one after the other.
                wait_for 60 "the first server (log: $LAB/hosts/s1/trireme.log)" lab_ready "$endpoint"
                join=(--server "$endpoint")
            fi
            [ -z "$vip" ] || join+=(--tls-san "$vip")
            host_add "s$n" "$(server_address "$n")" server "${join[@]}" --token "$token" --disable-agent \
                --data-dir @DATA@ --node-name "s$n" --node-ip "$(server_address "$n")" --write-kubeconfig @DATA@/kubeconfig.yaml
        fi
        host_up "s$n"
        if [ "$n" = 1 ]; then
            lab_kubeconfig "$endpoint"
            [ -z "$vip" ] || balancers_up "$servers"
        fi
    done
    for n in $(seq 1 "$servers"); do
        wait_for 90 "server s$n (log: $LAB/hosts/s$n/trireme.log)" lab_ready "https://$(server_address "$n"):6443"
    done
    [ -z "$vip" ] || wait_for 30 "the balancers' address $vip (logs: $LAB/hosts/lb*/*.log)" lab_ready "$endpoint"
    for n in $(seq 1 "$agents"); do
        [ -f "$LAB/hosts/a$n/address" ] || host_add "a$n" "$(agent_address "$n")" agent --server "$endpoint" --token "$(cat "$LAB/hosts/s1/data/server/node-token")" \
            --data-dir @DATA@ --node-name "a$n" --node-ip "$(agent_address "$n")" \
            --container-runtime-endpoint "$LAB/hosts/a$n/containerd/containerd.sock" --cgroup-root "/$LAB_CGROUP/a$n" "${NODE_ARGS[@]}"
        host_up "a$n"
    done
    export KUBECONFIG=$LAB_KUBECONFIG
    wait_for 120 "$agents nodes to be Ready" nodes_ready "$agents"
    kubectl get nodes -o wide
    printf '\n%s servers and %s agents are up. Use them with:\n\n    export KUBECONFIG=%s\n    kubectl get pods -A\n\nLogs: %s/hosts/*/trireme.log. ops/demo shows them at work, ops/down removes them.\n' "$servers" "$agents" "$LAB_KUBECONFIG" "$LAB"
}

# lab_alone NAME ADDRESS: a host that is a cluster of its own, server and node at once
lab_alone() {
    local name=$1 address=$2 dir=$LAB/hosts/$1
    lab_switch
    [ -f "$dir/address" ] || host_add "$name" "$address" server --cluster-init --data-dir @DATA@ --node-name "$name" --node-ip "$address" \
        --write-kubeconfig @DATA@/kubeconfig.yaml --container-runtime-endpoint "$dir/containerd/containerd.sock" --cgroup-root "/$LAB_CGROUP/$name" \
        "${NODE_ARGS[@]}"
    host_up "$name"
    wait_for 60 "the kubeconfig of $name (log: $dir/trireme.log)" test -s "$dir/data/kubeconfig.yaml"
    (umask 077 && sed "s#https://127.0.0.1:6443#https://$address:6443#" "$dir/data/kubeconfig.yaml" > "$dir/kubeconfig.yaml")
    export KUBECONFIG=$dir/kubeconfig.yaml
    wait_for 120 "$name to be Ready" nodes_ready 1
}

# The servers' shared secret, made once.
lab_token() {
    [ -f "$LAB/token" ] || (umask 077 && head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$LAB/token")
    cat "$LAB/token"
}

# lab_kubeconfig URL: the administrator's kubeconfig, pointing there
lab_kubeconfig() {
    local from=$LAB/hosts/s1/data/kubeconfig.yaml
    wait_for 60 "the first server's kubeconfig (log: $LAB/hosts/s1/trireme.log)" test -s "$from"
    (umask 077 && sed "s#https://127.0.0.1:6443#$1#" "$from" > "$LAB_KUBECONFIG")
}

# lab_ready URL: whether the server there is ready
lab_ready() { kubectl --kubeconfig "$LAB_KUBECONFIG" --server "$1" get --raw /readyz; }
