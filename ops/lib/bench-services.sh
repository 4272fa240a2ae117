# ops/bench services: how soon connections follow a change of endpoints. Sourced by ops/bench; hosts as in ops/lib/host.sh.
#
# bv: a server that is a node. The generator (tests/bench) runs in its network.

bench_services() {
    make_images
    if [ -n "${TRIREME_GENERATOR:-}" ]; then GENERATOR=$TRIREME_GENERATOR; else store_generator; fi
    bench_header 'services: an endpoint changes, seen from a node'
    trap services_clean EXIT
    services_host
    in_netns trireme-bv "$GENERATOR" services --kubeconfig "$LAB/hosts/bv/data/kubeconfig.yaml" --pids "$(host_pid bv trireme)" \
        --node-ip "$LAB_NET.13" || die "the benchmark did not end (log: $LAB/hosts/bv/trireme.log)"
    trap - EXIT
    services_clean
}

services_clean() { lab_down; rm -rf "${LAB:?}"; }

services_host() {
    mkdir -p "$LAB/hosts" "$LAB/bin"
    echo "{}" > "$LAB/config.yaml"
    install -m 755 "$BINARY" "$LAB/bin/trireme"
    lab_switch
    host_add bv $LAB_NET.13 server --cluster-init --data-dir @DATA@ --config $LAB/config.yaml --node-name bv --node-ip $LAB_NET.13 \
        --write-kubeconfig @DATA@/kubeconfig.yaml \
        --container-runtime-endpoint "$LAB/hosts/bv/containerd/containerd.sock" --cgroup-root /$LAB_CGROUP/bv "${NODE_ARGS[@]}"
    host_up bv
    wait_for 90 "the server's own node (log: $LAB/hosts/bv/trireme.log)" footprint_nodes bv
}
