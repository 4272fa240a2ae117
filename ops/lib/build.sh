# Building the binary. Sourced by prelude.sh.

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
