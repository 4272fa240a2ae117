# The inputs of the generated tables (ops/xtask/generated.json), outside the clone. Sourced by ops/test.

INPUTS=${XDG_CACHE_HOME:-$HOME/.cache}/trireme/inputs
VALIDATE_VERSION=1.36.0
K8S_PB_VERSION=0.9.0

# find_inputs: tells xtask about those that are on this machine
find_inputs() {
    local definitions=$INPUTS/kubernetes-validate-$VALIDATE_VERSION/_definitions.json k8s_pb=$INPUTS/k8s-pb-$K8S_PB_VERSION/src
    [ ! -f "$definitions" ] || export TRIREME_DEFINITIONS=${TRIREME_DEFINITIONS:-$definitions}
    [ ! -d "$k8s_pb" ] || export TRIREME_K8S_PB=${TRIREME_K8S_PB:-$k8s_pb}
}

# fetch_inputs: once, with the clients of their registries. Without a network the check goes by the recorded checksums, and says so. The
# discovery documents are in no registry: $TRIREME_DISCOVERY names a folder of them.
fetch_inputs() {
    mkdir -p "$INPUTS"
    fetch_definitions || say "the package kubernetes-validate $VALIDATE_VERSION cannot be fetched: its tables are compared with recorded checksums"
    fetch_k8s_pb || say "the crate k8s-pb $K8S_PB_VERSION cannot be fetched: its table is compared with a recorded checksum"
}

fetch_definitions() {
    local to=$INPUTS/kubernetes-validate-$VALIDATE_VERSION work
    [ ! -f "$to/_definitions.json" ] || return 0
    have python3 && python3 -m pip --version > /dev/null 2>&1 || return 1
    work=$(mktemp -d)
    if timeout 120 python3 -m pip download --quiet --no-deps --dest "$work" "kubernetes-validate==$VALIDATE_VERSION" > /dev/null 2>&1 &&
        python3 -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read("kubernetes_validate/kubernetes-json-schema/v1.36.0-local/_definitions.json"))' \
            "$work"/kubernetes_validate-*.whl > "$work/_definitions.json"; then
        mkdir -p "$to" && mv "$work/_definitions.json" "$to/_definitions.json"
    fi
    rm -rf "$work"
    [ -f "$to/_definitions.json" ]
}

fetch_k8s_pb() {
    local to=$INPUTS/k8s-pb-$K8S_PB_VERSION work source
    [ ! -d "$to/src" ] || return 0
    work=$(mktemp -d)
    mkdir "$work/src" && : > "$work/src/lib.rs"
    printf '[package]\nname = "inputs"\nversion = "0.0.0"\nedition = "2024"\n[dependencies]\nk8s-pb = "=%s"\n' "$K8S_PB_VERSION" > "$work/Cargo.toml"
    if timeout 120 cargo fetch --quiet --manifest-path "$work/Cargo.toml" 2> /dev/null; then
        for source in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/k8s-pb-"$K8S_PB_VERSION"; do
            [ ! -d "$source/src" ] || { mkdir -p "$to" && cp -r "$source/src" "$to/src.new" && mv "$to/src.new" "$to/src"; break; }
        done
    fi
    rm -rf "$work"
    [ -d "$to/src" ]
}
