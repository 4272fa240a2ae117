#!/bin/sh
# Installs Trireme from a release on a machine with systemd, as root. What it takes from the environment:
#
#   INSTALL_TRIREME_EXEC=server            the command and its options; `agent` if TRIREME_SERVER is set, else `server`
#   INSTALL_TRIREME_TARBALL=FILE           the release's tarball; found beside this script, or around it, otherwise
#   INSTALL_TRIREME_URL=URL                a folder with the tarballs and SHA256SUMS, to take it from
#   INSTALL_TRIREME_VERSION=V              which one of them
#   INSTALL_TRIREME_SHA256SUMS=FILE        with TARBALL: the checksums (SHA256SUMS beside the tarball otherwise)
#   INSTALL_TRIREME_CONFIG=FILE            a configuration file, installed as /etc/trireme/config.yaml
#   INSTALL_TRIREME_BIN_DIR=/usr/local/bin
#   INSTALL_TRIREME_SYSTEMD_DIR=/etc/systemd/system
#   INSTALL_TRIREME_SKIP_ENABLE=true       installs, and neither enables nor starts
#   INSTALL_TRIREME_SKIP_START=true        enables, and does not start
#   INSTALL_TRIREME_SKIP_CONTAINERD=true   leaves /etc/containerd/config.toml alone
#   TRIREME_SERVER, TRIREME_TOKEN, TRIREME_...   options by their names in the environment; kept for the service, readable by root only
#
# Run again it upgrades. trireme-uninstall.sh, beside the binary, removes all of it.
set -eu

say() { printf '[trireme] %s\n' "$*"; }
die() { printf '[trireme] error: %s\n' "$*" >&2; exit 1; }
yes() { [ "${1:-}" = true ] || [ "${1:-}" = yes ] || [ "${1:-}" = 1 ]; }

case ${1:-} in -h | --help) sed -n '2,18s/^# \{0,1\}//p' "$0"; exit 0 ;; esac

bin_dir=${INSTALL_TRIREME_BIN_DIR:-/usr/local/bin}
unit_dir=${INSTALL_TRIREME_SYSTEMD_DIR:-/etc/systemd/system}
config=/etc/trireme/config.yaml

check_machine() {
    [ "$(id -u)" = 0 ] || die "needs root"
    command -v systemctl > /dev/null && [ -d /run/systemd/system ] || die "this machine does not run systemd: see the documentation for how to start trireme without it"
    case $(uname -m) in
        x86_64) arch=amd64 ;;
        aarch64) arch=arm64 ;;
        *) die "there is no release for $(uname -m)" ;;
    esac
    command -v sha256sum > /dev/null || die "sha256sum is missing"
}

# The command, its options, and the unit that runs it.
choose_command() {
    exec=${INSTALL_TRIREME_EXEC:-}
    [ -n "$exec" ] || { [ -n "${TRIREME_SERVER:-}" ] && exec=agent || exec=server; }
    command=${exec%% *}
    case $command in server | agent) ;; *) die "INSTALL_TRIREME_EXEC: expected 'server ...' or 'agent ...', got '$exec'" ;; esac
    unit=trireme-$command
    # A node, or a server that is one, runs containers.
    node=true
    case " $exec " in *" --disable-agent "*) node=false ;; esac
    if [ -f "${INSTALL_TRIREME_CONFIG:-$config}" ] && grep -q '^disable-agent: *true' "${INSTALL_TRIREME_CONFIG:-$config}"; then node=false; fi
}

check_programs() {
    [ "$node" = true ] || return 0
    missing=
    for program in containerd runc nft conntrack ip modprobe; do command -v "$program" > /dev/null || missing="$missing $program"; done
    [ -z "$missing" ] || die "missing programs:$missing (on Debian and Ubuntu: apt-get install containerd runc nftables conntrack iproute2 kmod)"
}

# The release: unpacked around this script, or a tarball whose checksum is right.
find_release() {
    here=$(cd "$(dirname "$0")" && pwd)
    if [ -z "${INSTALL_TRIREME_TARBALL:-}${INSTALL_TRIREME_URL:-}" ] && [ -x "$here/bin/trireme" ]; then
        release=$here
        return
    fi
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    if [ -n "${INSTALL_TRIREME_URL:-}" ]; then
        command -v curl > /dev/null || die "curl is missing"
        [ -n "${INSTALL_TRIREME_VERSION:-}" ] || die "INSTALL_TRIREME_VERSION is not set: which version of $INSTALL_TRIREME_URL?"
        tarball=$work/trireme-$INSTALL_TRIREME_VERSION-linux-$arch.tar.gz
        sums=$work/SHA256SUMS
        for file in "$tarball" "$sums"; do
            curl -fsSL --retry 3 -o "$file" "$INSTALL_TRIREME_URL/$(basename "$file")" || die "$INSTALL_TRIREME_URL/$(basename "$file") cannot be fetched"
        done
    else
        tarball=${INSTALL_TRIREME_TARBALL:-}
        [ -n "$tarball" ] || tarball=$(ls "$here"/trireme-*-linux-"$arch".tar.gz 2> /dev/null | tail -n 1)
        [ -f "$tarball" ] || die "no release found: set INSTALL_TRIREME_TARBALL or INSTALL_TRIREME_URL"
        sums=${INSTALL_TRIREME_SHA256SUMS:-$(dirname "$tarball")/SHA256SUMS}
    fi
    verify "$tarball" "$sums"
    tar -xzf "$tarball" -C "$work"
    release=$(ls -d "$work"/trireme-*/)
    [ -x "$release/bin/trireme" ] || die "$tarball holds no bin/trireme"
}

verify() {
    [ -f "$2" ] || die "$2 is missing: the tarball cannot be verified"
    expected=$(awk -v name="$(basename "$1")" '$2 == name || $2 == "*" name {print $1}' "$2")
    [ -n "$expected" ] || die "$2 does not name $(basename "$1")"
    [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$expected" ] || die "$1 is damaged: its SHA-256 is not the one in $2"
}

# Before anything starts: the service reads it at its first start.
write_config() {
    install -d -m 700 /etc/trireme
    if [ -n "${INSTALL_TRIREME_CONFIG:-}" ]; then
        [ -f "$INSTALL_TRIREME_CONFIG" ] || die "INSTALL_TRIREME_CONFIG: $INSTALL_TRIREME_CONFIG does not exist"
        [ "$(realpath "$INSTALL_TRIREME_CONFIG")" = "$config" ] || install -m 600 "$INSTALL_TRIREME_CONFIG" "$config"
    fi
    environment=/etc/trireme/$command.env
    named=$(env | grep '^TRIREME_[A-Z0-9_]*=' | sort || true)
    # An upgrade without options keeps those of the installation.
    if [ -n "$named" ] || [ ! -f "$environment" ]; then
        (umask 077; printf '%s\n' "$named" | sed '/^$/d; s/\\/\\\\/g; s/"/\\"/g; s/=\(.*\)/="\1"/' > "$environment.new")
        mv "$environment.new" "$environment"
    fi
    # Without a file the options come from the command and the environment.
    [ ! -f "$config" ] || "$release/bin/trireme" check-config --config "$config" > /dev/null || die "$config is not right (see above)"
}

install_files() {
    mkdir -p "$bin_dir" "$unit_dir"
    install -m 755 "$release/bin/trireme" "$bin_dir/.trireme.new"
    mv "$bin_dir/.trireme.new" "$bin_dir/trireme"
    install -d -m 700 /var/lib/trireme
    mkdir -p /var/lib/trireme/agent/images
    install -m 644 "$release/share/trireme/images/pause.tar" /var/lib/trireme/agent/images/trireme-pause.tar
    sed "s#^ExecStart=.*#ExecStart=$bin_dir/trireme $exec#" "$release/lib/systemd/system/$unit.service" > "$unit_dir/$unit.service"
    if [ "$node" = false ] && [ "$command" = server ]; then
        mkdir -p "$unit_dir/$unit.service.d"
        cp "$release/share/trireme/control-plane-only.conf" "$unit_dir/$unit.service.d/"
    else
        rm -f "$unit_dir/$unit.service.d/control-plane-only.conf"
    fi
    write_uninstaller
}

# A configuration that finds the pod network's plugin; an existing one is kept beside it.
configure_containerd() {
    [ "$node" = true ] && ! yes "${INSTALL_TRIREME_SKIP_CONTAINERD:-}" || return 0
    if [ -f /etc/containerd/config.toml ]; then
        ! grep -q /var/lib/trireme/agent/cni /etc/containerd/config.toml || return 0
        cp -p /etc/containerd/config.toml /etc/containerd/config.toml.before-trireme
        say "/etc/containerd/config.toml is replaced; what was there is in config.toml.before-trireme"
    fi
    mkdir -p /etc/containerd
    install -m 644 "$release/share/trireme/containerd/config.toml" /etc/containerd/config.toml
    systemctl restart containerd
}

write_uninstaller() {
    sed "s#^bin_dir=.*#bin_dir='$bin_dir'#; s#^unit_dir=.*#unit_dir='$unit_dir'#" "$release/uninstall.sh" > "$bin_dir/.uninstall.new"
    chmod 755 "$bin_dir/.uninstall.new"
    mv "$bin_dir/.uninstall.new" "$bin_dir/trireme-uninstall.sh"
}

start() {
    systemctl daemon-reload
    ! yes "${INSTALL_TRIREME_SKIP_ENABLE:-}" || { say "installed; start it with: systemctl enable --now $unit"; return 0; }
    systemctl enable "$unit"
    ! yes "${INSTALL_TRIREME_SKIP_START:-}" || { say "installed; start it with: systemctl start $unit"; return 0; }
    say "starting $unit"
    systemctl restart "$unit" || die "$unit did not start: journalctl -u $unit"
    say "$unit runs"
}

check_machine
choose_command
check_programs
find_release
write_config
install_files
configure_containerd
start
