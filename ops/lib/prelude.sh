# The common beginning of every script here: strict mode, paths, messages, waiting, processes. Sourced, never run.

set -euo pipefail
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Outside the clone, so that a fresh clone finds what an earlier one compiled (RocksDB takes a quarter of an hour).
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/trireme/target}
RUN=/run/trireme
LAB=/var/lib/trireme-lab
IMAGES=$LAB/images
# Eviction thresholds of the nodes on this machine: bytes, because 5 % of a large disk is more than pods need.
NODE_ARGS=(--kubelet-arg 'eviction-hard=memory.available<100Mi,nodefs.available<1Gi,imagefs.available<1Gi')

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

need_root() { [ "$(id -u)" = 0 ] || die "$(basename "$0") needs root: it makes network namespaces, mounts and cgroups"; }

. "$REPO/ops/lib/packages.sh"
. "$REPO/ops/lib/build.sh"

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
