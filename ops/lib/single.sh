# One server that is also a node, on this host. Sourced by ops/up, ops/down and ops/bench.

SINGLE_DATA=/var/lib/trireme
SINGLE_CONTAINERD=$LAB/containerd
SINGLE_SOCKET=$RUN/containerd.sock
SINGLE_KUBECONFIG=/etc/trireme/kubeconfig.yaml
SINGLE_CGROUP=trireme

single_up() {
    mkdir -p "$RUN" "$SINGLE_CONTAINERD" "$LAB/bin"
    install -m 755 "$BINARY" "$LAB/bin/trireme.new" && mv "$LAB/bin/trireme.new" "$LAB/bin/trireme"
    single_containerd
    place_images "$SINGLE_DATA/agent/images"
    if ! alive "$RUN/server.pid"; then
        say "starting the server"
        # As the unit runs it (ops/systemd): what must be readable for others gets its mode from the code.
        spawn "$RUN/server.pid" "$RUN/server.log" sh -c 'umask 0077 && exec "$@"' sh "$LAB/bin/trireme" server --cluster-init \
            --container-runtime-endpoint "$SINGLE_SOCKET" --cgroup-root "/$SINGLE_CGROUP" "${NODE_ARGS[@]}"
    fi
    export KUBECONFIG=$SINGLE_KUBECONFIG
    wait_for 60 "the API server (log: $RUN/server.log)" kubectl get --raw /readyz
    wait_for 90 "the node to be Ready (log: $RUN/server.log)" nodes_ready 1
    kubectl get nodes -o wide
    printf '\nThe cluster is up. Use it with:\n\n    export KUBECONFIG=%s\n    kubectl get pods -A\n\nops/demo shows it at work, ops/down removes it.\n' "$SINGLE_KUBECONFIG"
}

single_containerd() {
    alive "$RUN/containerd.pid" || {
        say "starting containerd"
        containerd_config "$SINGLE_CONTAINERD" "$SINGLE_SOCKET" "$SINGLE_DATA/agent/cni" > "$SINGLE_CONTAINERD/config.toml"
        spawn "$RUN/containerd.pid" "$RUN/containerd.log" containerd --config "$SINGLE_CONTAINERD/config.toml"
    }
    wait_for 30 "containerd (log: $RUN/containerd.log)" ctr -a "$SINGLE_SOCKET" version
}

# nodes_ready N: whether N nodes are Ready
nodes_ready() {
    local ready
    ready=$(kubectl get nodes -o jsonpath='{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' | grep -c True)
    [ "$ready" -ge "$1" ]
}

single_down() {
    stop "$RUN/server.pid"
    if [ -x "$LAB/bin/trireme" ] && alive "$RUN/containerd.pid"; then
        "$LAB/bin/trireme" cleanup --data-dir "$SINGLE_DATA" --container-runtime-endpoint "$SINGLE_SOCKET" --cgroup-root "/$SINGLE_CGROUP" ||
            die "the node could not be taken off this host (see above): nothing more was removed, run ops/down again"
    fi
    stop "$RUN/containerd.pid"
    remove_mounts "$SINGLE_CONTAINERD"
    remove_mounts "$SINGLE_DATA"
    remove_cgroups "$SINGLE_CGROUP"
    rm -rf "$SINGLE_CONTAINERD" "$SINGLE_DATA" "$RUN"
    rm -f "$SINGLE_KUBECONFIG"
    rmdir /etc/trireme 2>/dev/null || true
}
