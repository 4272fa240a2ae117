# What every script here shares: words to the reader, packages, the build, waiting. Sourced, never run.

set -euo pipefail
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Outside the clone, so that a fresh clone finds what an earlier one compiled (RocksDB takes a quarter of an hour).
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/trireme/target}
RUN=/run/trireme
LAB=/var/lib/trireme-lab
IMAGES=$LAB/images

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

need_root() { [ "$(id -u)" = 0 ] || die "$(basename "$0") needs root: it makes network namespaces, mounts and cgroups"; }

# have COMMAND...: whether all of them are installed
have() { local c; for c in "$@"; do command -v "$c" >/dev/null 2>&1 || return 1; done; }

# install_packages: what a node and the build need, from Debian; nothing is touched if all of it is there
install_packages() {
    local packages=() pair
    for pair in containerd:containerd runc:runc nft:nftables conntrack:conntrack ip:iproute2 busybox:busybox-static \
        g++:g++ make:make curl:curl jq:jq setsid:util-linux pgrep:procps; do
        have "${pair%%:*}" || packages+=("${pair#*:}")
    done
    ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1 || packages+=(libclang-dev)
    [ ${#packages[@]} = 0 ] || { say "installing ${packages[*]}"; apt_install "${packages[@]}"; }
    kubectl_serves || install_kubectl
    have cargo || die "cargo is missing: install Rust 1.95 or newer first"
}

apt_install() {
    local log; log=$(mktemp)
    # A daemon that a package would start is not wanted here: containerd is started with our own configuration.
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e $policy ]; then printf '#!/bin/sh\nexit 101\n' > $policy; chmod 755 $policy; made=yes; fi
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } > "$log" 2>&1 || {
        [ -z "$made" ] || rm -f $policy
        tail -n 5 "$log" >&2; die "apt-get could not install: $*"; }
    [ -z "$made" ] || rm -f $policy
    rm -f "$log"
}

# kubectl_serves: whether there is a kubectl that is new enough. An older one drops fields it does not know from what it changes,
# and lacks verbs.
kubectl_serves() {
    local minor
    minor=$(kubectl version --client -o json 2> /dev/null | sed -n 's/.*"minor": *"\([0-9]*\).*/\1/p' | head -n 1)
    [ "${minor:-0}" -ge 30 ]
}

# install_kubectl: from the Debian release after this one, whose package needs nothing but libc; this one's is years older. The
# machine's own sources and keys are used, with lists of their own: nothing else is upgraded by it.
install_kubectl() {
    local work apt log
    say "installing kubectl (of the Debian release after this one)"
    work=$(mktemp -d); log=$work/log
    mkdir -p "$work/parts" "$work/lists/partial"
    cat /etc/apt/sources.list.d/debian.sources 2> /dev/null |
        awk 'BEGIN {RS = ""; ORS = "\n\n"} !/security/' | sed 's/^Suites:.*/Suites: trixie/' > "$work/parts/next.sources"
    grep -hE '^deb .*bookworm ' /etc/apt/sources.list 2> /dev/null | sed 's/bookworm/trixie/' > "$work/parts/next.list" || true
    apt=(-qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$work/parts" -o "Dir::State::lists=$work/lists" -o APT::Sandbox::User=root)
    if ! (cd "$work" && apt-get "${apt[@]}" update && apt-get "${apt[@]}" download kubectl && dpkg-deb -x kubectl_*.deb tree) > "$log" 2>&1; then
        tail -n 5 "$log" >&2
        rm -rf "$work"
        die "kubectl is missing or older than 1.30: put a newer one into /usr/local/bin"
    fi
    install -m 755 "$work/tree/usr/bin/kubectl" /usr/local/bin/kubectl
    rm -rf "$work"
}

# build [CARGO OPTIONS]: the binary; sets BINARY
build() {
    say "building trireme (the first time RocksDB is compiled: about a quarter of an hour on two cores)"
    case " $* " in
        *" --release "*)
            (cd "$REPO" && find_rocksdb && cargo build --quiet -p trireme "$@")
            BINARY=$CARGO_TARGET_DIR/release/trireme
            ;;
        *)
            (cd "$REPO" && cargo build --quiet -p trireme "$@")
            BINARY=$CARGO_TARGET_DIR/debug/trireme
            ;;
    esac
    [ -x "$BINARY" ] || die "the build left no binary at $BINARY"
}

# find_rocksdb: for a release build. The development profile compiles RocksDB optimized and without assertions, so its library
# serves here too: RocksDB is compiled once for both.
find_rocksdb() {
    [ -z "${ROCKSDB_LIB_DIR:-}" ] || return 0
    local library
    library=$(ls -t "$CARGO_TARGET_DIR"/debug/build/librocksdb-sys-*/out/librocksdb.a 2> /dev/null | head -n 1) || true
    if [ -z "$library" ]; then
        cargo build --quiet -p trireme-raft
        library=$(ls -t "$CARGO_TARGET_DIR"/debug/build/librocksdb-sys-*/out/librocksdb.a | head -n 1)
    fi
    ROCKSDB_LIB_DIR=$(dirname "$library")
    export ROCKSDB_LIB_DIR ROCKSDB_STATIC=1
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds; dies naming what was waited for
wait_for() {
    local seconds=$1 what=$2 end; shift 2
    end=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || die "waited ${seconds} s in vain for $what"
        sleep 0.2
    done
}

# place_images FOLDER: the images into a node's folder of tarballs, from which its agent imports them
place_images() {
    local image
    mkdir -p "$1"
    for image in "$IMAGES"/*.tar; do
        cmp -s "$image" "$1/$(basename "$image")" || { cp "$image" "$1/.placing" && mv "$1/.placing" "$1/$(basename "$image")"; }
    done
}

# alive PIDFILE: whether the process it names still runs and is the one that was started (pids are used again)
alive() {
    local pid started
    [ -f "$1" ] || return 1
    read -r pid started < "$1" || return 1
    [ -n "${started:-}" ] && [ "$(start_time "$pid")" = "$started" ]
}

start_time() { awk '{sub(/.*\) /, ""); print $20}' "/proc/$1/stat" 2>/dev/null; }

# spawn PIDFILE LOG COMMAND...: starts a process that outlives this script
spawn() {
    local pidfile=$1 log=$2; shift 2
    setsid "$@" >> "$log" 2>&1 < /dev/null &
    local pid=$!
    disown "$pid"
    printf '%s %s\n' "$pid" "$(start_time "$pid")" > "$pidfile"
}

# stop PIDFILE [SIGNAL]: ends what spawn started, and waits for its end
stop() {
    local pid
    alive "$1" || { rm -f "$1"; return 0; }
    read -r pid _ < "$1"
    kill -"${2:-TERM}" "$pid" 2>/dev/null || true
    local end=$((SECONDS + 20))
    while alive "$1"; do
        [ $SECONDS -lt $end ] || { kill -KILL "$pid" 2>/dev/null || true; }
        sleep 0.1
    done
    rm -f "$1"
}
