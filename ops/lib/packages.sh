# Programs and libraries of this machine: what is missing is installed from Debian. Sourced by prelude.sh.

# have COMMAND...: whether all of them are installed
have() { local c; for c in "$@"; do command -v "$c" >/dev/null 2>&1 || return 1; done; }

# install_packages: what a node and the build need, from Debian; nothing is touched if all of it is there. What only the user can change is
# looked at first.
install_packages() {
    check_machine
    install_missing containerd:containerd runc:runc nft:nftables conntrack:conntrack ip:iproute2 modprobe:kmod busybox:busybox-static \
        g++:g++ make:make curl:curl jq:jq setsid:util-linux pgrep:procps
    have_libclang || { say "installing libclang-dev"; apt_install libclang-dev; }
    have_libclang || die "bindgen would find no usable libclang: install libclang-dev, or set LIBCLANG_PATH to the folder of libclang.so"
    kubectl_serves || install_kubectl
}

# install_missing PROGRAM:PACKAGE...: the packages whose programs are missing
install_missing() {
    local packages=() pair
    for pair in "$@"; do have "${pair%%:*}" || packages+=("${pair#*:}"); done
    [ ${#packages[@]} = 0 ] || { say "installing ${packages[*]}"; apt_install "${packages[@]}"; }
}

# check_machine: what no package brings. Before the build: it takes half an hour, and would stop at its end.
check_machine() {
    local needed found free_kb memory_kb
    have cargo || die "cargo is missing: install Rust (rustup.rs), $(rust_needed) or newer"
    needed=$(rust_needed) found=$(cd "$REPO" && cargo --version | cut -d' ' -f2)
    newer_or_same "$found" "$needed" || die "cargo is $found, and $needed or newer is needed: rustup update stable"
    # Cold, the build writes 9 GiB; warm, a few hundred MiB.
    needed=10
    [ ! -x "$CARGO_TARGET_DIR/debug/trireme" ] || needed=2
    mkdir -p "$CARGO_TARGET_DIR"
    free_kb=$(df -Pk "$CARGO_TARGET_DIR" | awk 'NR == 2 {print $4}')
    [ "$free_kb" -ge $((needed << 20)) ] ||
        die "$CARGO_TARGET_DIR: $((free_kb >> 20)) GiB are free, and the build needs $needed: make room, or set CARGO_TARGET_DIR to another disk"
    memory_kb=$(awk '/^MemAvailable/ {print $2}' /proc/meminfo)
    [ "$memory_kb" -ge $((2 << 20)) ] || die "$((memory_kb >> 10)) MiB of memory are available, and the build needs 2 GiB"
    have apt-get || have containerd runc nft conntrack ip g++ make || die "apt-get is missing: install containerd, runc, nftables, conntrack, iproute2, g++ and make by hand"
}

rust_needed() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPO/Cargo.toml"; }

# newer_or_same A B: whether version A is at least B
newer_or_same() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# have_libclang: whether a libclang loads, as bindgen loads it, and finds clang's own headers. The names alone do not tell: libclang-cpp.so is another
# library, and packages of the runtime bring no headers.
have_libclang() {
    local probe folder library found=1
    probe=$(mktemp)
    have gcc && gcc -o "$probe" "$REPO/ops/lib/libclang-probe.c" -ldl || { rm -f "$probe"; return 1; }
    for folder in ${LIBCLANG_PATH:+"$LIBCLANG_PATH"} /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib64 /usr/lib /usr/local/lib; do
        for library in "$folder"/libclang.so "$folder"/libclang-[0-9]*.so "$folder"/libclang.so.* "$folder"/libclang-[0-9]*.so.*; do
            if [ -f "$library" ] && "$probe" "$library" 2> /dev/null; then found=0; break 2; fi
        done
    done
    rm -f "$probe"
    return $found
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
    { cat /etc/apt/sources.list.d/debian.sources 2> /dev/null || true; } |
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
