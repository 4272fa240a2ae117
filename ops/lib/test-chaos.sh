# The long fault tests: the simulation, kills, power cuts, faults, random input. Sourced by ops/test.

# The simulation: so many seeds, or one again.
simulate() {
    cargo build --quiet --profile chaos -p trireme-chaos
    local binary=${CARGO_TARGET_DIR:-target}/chaos/trireme-chaos
    if [ "$1" = --seed ]; then
        exec "$binary" seed "$2" --trace
    fi
    say "simulating $1 seeds"
    "$binary" seeds "$1" --jobs "$(nproc)"
}

# Kills under load: so many of the leader of three servers; then a quarter as many of everything that can be killed, there and where
# server and node are one.
kill_servers() {
    build
    test_packages
    say "bringing up three servers with two agents"
    trap 'ops/down' EXIT
    ops/up --servers 3 --agents 2 > /dev/null || return 1
    local kills=(cargo test -p trireme-e2e --test kills) shown=(--test-threads 1 --nocapture)
    say "killing the leader, $1 times"
    TRIREME_KILLS=$1 TRIREME_FAULTS=Leader,LeaderPower "${kills[@]}" kills_on_three_servers -- "${shown[@]}" || return 1
    say "killing all there is, $((($1 + 3) / 4)) times each"
    TRIREME_KILLS=$((($1 + 3) / 4)) "${kills[@]}" -- "${shown[@]}"
}

# Power cuts under load: so many; and disks that are slow, failing and full.
cut_power() {
    build
    say "cutting the power of three servers, $1 times"
    TRIREME_CUTS=$1 TRIREME_SLOW_SECS=120 TRIREME_BINARY=$BINARY cargo test -p trireme-e2e --test cuts -- --test-threads 1 --nocapture
}

# Servers that stand still, networks that are cut, clocks that are set: so many rounds.
set_faults() {
    build
    test_packages
    say "standing still, cutting networks and setting clocks, $1 times each"
    TRIREME_BINARY=$BINARY TRIREME_FAULT_ROUNDS=$1 cargo test -p trireme-e2e --test faults -- --test-threads 1 --nocapture
}

# Long runs of the store's tests; the report has no figures of them.
large() {
    say "10,000 flipped bits on the disk of a store"
    TRIREME_BIT_FLIPS=10000 cargo test -p trireme-raft --test bit_flips -- --nocapture || return 1
    say "a watcher stalled through a million events; a snapshot of 1 GiB"
    TRIREME_WATCH_EVENTS=1000000 TRIREME_SNAPSHOT_MIB=1024 cargo test -p trireme-raft --test large -- --test-threads 1 --nocapture
}

# Random input for everything that decodes bytes from outside: so many seconds a target.
fuzz() {
    cargo build --quiet --profile chaos -p trireme-fuzz
    say "feeding every decoder for $1 s"
    "${CARGO_TARGET_DIR:-target}/chaos/trireme-fuzz" all --seconds "$1"
}

# chaos PART [N]: a part that fails does not keep the others from being run and reported.
chaos() {
    local part=${1:-all} failed=()
    export TRIREME_FIGURES=${XDG_CACHE_HOME:-$HOME/.cache}/trireme/bad-luck
    mkdir -p "$(dirname "$TRIREME_FIGURES")"
    case $part in
        all)
            rm -f "$TRIREME_FIGURES"
            simulate "${2:-1000}" || failed+=(seeds)
            large || failed+=(large)
            cut_power 100 || failed+=(cuts)
            kill_servers 200 || failed+=(kills)
            set_faults 20 || failed+=(faults)
            fuzz 60 || failed+=(fuzz)
            ;;
        seeds) simulate "${2:-1000}" || failed+=(seeds) ;;
        kills) kill_servers "${2:-200}" || failed+=(kills) ;;
        faults) set_faults "${2:-20}" || failed+=(faults) ;;
        cuts) cut_power "${2:-100}" || failed+=(cuts) ;;
        fuzz) fuzz "${2:-60}"; return ;;
        report) ;;
        --seed) simulate --seed "${2:?which seed?}" ;;
        *) die "unknown part '$part' of chaos (see ops/test --help)" ;;
    esac
    [ -e "$TRIREME_FIGURES" ] || die "nothing has run yet (see ops/test --help)"
    cargo build --quiet --profile chaos -p trireme-chaos
    "${CARGO_TARGET_DIR:-target}/chaos/trireme-chaos" report "$TRIREME_FIGURES" || failed+=(promises)
    [ ${#failed[@]} = 0 ] || die "failed: ${failed[*]}"
}
