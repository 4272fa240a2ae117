# Several hosts on this machine: servers s1.. and agents a1... Sourced by ops/up.

LAB_KUBECONFIG=$LAB/kubeconfig.yaml

server_address() { echo "$LAB_NET.$((10 + $1))"; }
agent_address() { echo "$LAB_NET.$((20 + $1))"; }

# lab_up SERVERS AGENTS
lab_up() {
    local servers=$1 agents=$2 n first token
    mkdir -p "$LAB/hosts" "$LAB/bin"
    install -m 755 "$BINARY" "$LAB/bin/trireme.new" && mv "$LAB/bin/trireme.new" "$LAB/bin/trireme"
    token=$(lab_token)
    lab_switch
    first=https://$(server_address 1):6443
    for n in $(seq 1 "$servers"); do
        local join=(--cluster-init)
        [ "$n" = 1 ] || join=(--server "$first")
        [ -f "$LAB/hosts/s$n/address" ] || host_add "s$n" "$(server_address "$n")" server "${join[@]}" --token "$token" --disable-agent \
            --data-dir @DATA@ --node-name "s$n" --node-ip "$(server_address "$n")" --write-kubeconfig @DATA@/kubeconfig.yaml
        host_up "s$n"
        # The first server makes the cluster; the others join it one after the other.
        lab_kubeconfig "s$n"
        [ "$n" != 1 ] || wait_for 60 "the first server (log: $LAB/hosts/s1/trireme.log)" kubectl --kubeconfig "$LAB_KUBECONFIG" get --raw /readyz
    done
    for n in $(seq 1 "$servers"); do
        wait_for 90 "server s$n (log: $LAB/hosts/s$n/trireme.log)" kubectl --kubeconfig "$LAB_KUBECONFIG" --server "https://$(server_address "$n"):6443" get --raw /readyz
    done
    for n in $(seq 1 "$agents"); do
        [ -f "$LAB/hosts/a$n/address" ] || host_add "a$n" "$(agent_address "$n")" agent --server "$first" --token "$(cat "$LAB/hosts/s1/data/server/node-token")" \
            --data-dir @DATA@ --node-name "a$n" --node-ip "$(agent_address "$n")" \
            --container-runtime-endpoint "$LAB/hosts/a$n/containerd/containerd.sock" --cgroup-root "/$LAB_CGROUP/a$n"
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
        --write-kubeconfig @DATA@/kubeconfig.yaml --container-runtime-endpoint "$dir/containerd/containerd.sock" --cgroup-root "/$LAB_CGROUP/$name"
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

# lab_kubeconfig HOST: the administrator's kubeconfig, pointing at the first server's address
lab_kubeconfig() {
    local from=$LAB/hosts/$1/data/kubeconfig.yaml
    [ "$1" = s1 ] || return 0
    wait_for 60 "the first server's kubeconfig (log: $LAB/hosts/$1/trireme.log)" test -s "$from"
    (umask 077 && sed "s#https://127.0.0.1:6443#https://$(server_address 1):6443#" "$from" > "$LAB_KUBECONFIG")
}
