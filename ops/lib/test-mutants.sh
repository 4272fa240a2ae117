# Builds with a planted bug, which the tests must catch. Sourced by ops/test.

# A store that acknowledges before it has synced must not pass: a test that cannot fail proves nothing.
catch_mutants() {
    local log; log=$(mktemp)
    say "a store that does not sync must fail its tests"
    # The one test that asks for it: the others wait for syncs that never fail.
    local test=a_majority_has_synced_before_each_acknowledgement
    cargo test --quiet -p trireme-raft --no-default-features --features mutants --test durability --no-run
    if TRIREME_MUTANT=unsynced-append cargo test --quiet -p trireme-raft --no-default-features --features mutants --test durability \
        -- --exact "$test" > "$log" 2>&1; then
        die "the tests passed on a store that does not sync (log: $log)"
    fi
    grep '^test result' "$log" | sed 's/^/as it must: /' >&2
    say "three servers that do not sync must not survive power cuts"
    cargo build --quiet -p trireme --features mutants
    cp "${CARGO_TARGET_DIR:-target}/debug/trireme" "${CARGO_TARGET_DIR:-target}/debug/trireme-mutants"
    cargo test --quiet -p trireme-e2e --test cuts --no-run
    if TRIREME_BINARY=${CARGO_TARGET_DIR:-target}/debug/trireme-mutants TRIREME_MUTANT=unsynced-append TRIREME_CUTS=12 \
        cargo test --quiet -p trireme-e2e --test cuts power_cuts_lose_nothing -- --nocapture > "$log" 2>&1; then
        die "the tests passed on servers that do not sync (log: $log)"
    fi
    # Lost writes, servers that refuse what their logs have lost, a cluster without a leader: all that a cut has broken is named so.
    if ! grep -m 1 -A 3 '^Error: after power cut' "$log" | cut -c 1-150 | sed 's/^/as it must: /' >&2; then
        tail -n 40 "$log" >&2
        die "the tests failed, but not for what a power cut took"
    fi
    rm -f "$log"
    say "the simulation must find every planted bug"
    cargo build --quiet -p trireme-chaos --features mutants
    "${CARGO_TARGET_DIR:-target}/debug/trireme-chaos" mutants || die "a planted bug was not found"
}
