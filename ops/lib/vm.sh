# ops/test vm: a virtual machine with a stock Debian (systemd, cgroup v2, its own kernel), emulated, in which the package is installed as
# docs/install.md says. Sourced by ops/test; the checks are in vm-checks.sh and vm-install.sh.
#
# The root is made once from Debian's packages and kept outside the clone. The machine has no way out: what apt needs is in its cache, images
# come as tarballs. Emulation is slow: pods are started one after the other, with long limits.

VM_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/trireme/vm
VM_MEMORY_MIB=3072
VM_BOOT_SECONDS=1800
# What the package depends on; apt in the machine finds it in its cache.
VM_DEPENDS=(containerd runc nftables conntrack iproute2 kmod libstdc++6)

# vm [RELEASE] [--binary FILE] [--namespaces] [--keep]
vm() {
    local release=debian12 binary='' keep= namespaces=
    while [ $# -gt 0 ]; do
        case $1 in
            debian12 | debian13) release=$1; shift ;;
            --binary) binary=${2:-}; shift 2 || die "--binary needs a file" ;;
            --namespaces) namespaces=yes; shift ;;
            --keep) keep=yes; shift ;;
            *) die "unknown option $1 (see ops/test --help)" ;;
        esac
    done
    need_root
    [ -n "$namespaces" ] || install_missing qemu-system-x86_64:qemu-system-x86
    install_missing mmdebstrap:mmdebstrap mke2fs:e2fsprogs ssh:openssh-client dpkg-deb:dpkg dpkg-shlibdeps:dpkg-dev
    [ "$(dpkg --print-architecture)" = amd64 ] || die "ops/test vm: only amd64 machines are emulated so far"
    if [ -z "$binary" ]; then
        install_packages
        build
        binary=$BINARY
    fi
    have kubectl || die "kubectl is missing"
    # The test images are the same as ops/up's, in a folder of their own.
    IMAGES=$VM_CACHE/images
    make_images
    vm_root "$release"
    . "$REPO/ops/lib/vm-install.sh"
    . "$REPO/ops/lib/vm-checks.sh"
    [ -z "$namespaces" ] || . "$REPO/ops/lib/vm-namespaces.sh"
    VM_WORK=$(mktemp -d)
    trap 'vm_stop "'"$keep"'"' EXIT
    say "packaging $binary"
    "$REPO/ops/package" --binary "$binary" --out "$VM_WORK/package" > /dev/null
    vm_disk "$release"
    say "booting $release"
    vm_boot "$release"
    vm_checks
}

# vm_root RELEASE: a root filesystem, once
vm_root() {
    local suite root=$VM_CACHE/$1/root
    case $1 in debian12) suite=bookworm ;; debian13) suite=trixie ;; esac
    mkdir -p "$VM_CACHE/$1"
    [ -f "$VM_CACHE/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$VM_CACHE/key"
    if [ ! -f "$VM_CACHE/$1/complete" ]; then
        say "making a root of $suite (three minutes)"
        rm -rf "$root"
        # The packages are fetched from outside: the root's own resolver does not run here.
        nice -n 10 mmdebstrap --quiet --mode=root --variant=important --skip=cleanup/apt,cleanup/apt/lists \
            --include=systemd-sysv,systemd-resolved,dbus,openssh-server,initramfs-tools,linux-image-cloud-amd64,apparmor,kmod,procps,ca-certificates,curl,man-db,iptables \
            --customize-hook='APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -y -q --download-only --no-install-recommends install '"${VM_DEPENDS[*]}" \
            "$suite" "$root" "$(debian_mirror)" > "$VM_CACHE/$1/log" 2>&1 || { tail -n 5 "$VM_CACHE/$1/log" >&2; die "the root of $suite could not be made"; }
        compgen -G "$root/var/cache/apt/archives/containerd_*.deb" > /dev/null || die "the packages that trireme depends on could not be fetched into $root"
        touch "$VM_CACHE/$1/complete"
    fi
    echo "$1" > "$root/etc/hostname"
    printf '127.0.0.1 localhost\n10.0.2.15 %s\n' "$1" > "$root/etc/hosts"
    echo '/dev/vda / ext4 defaults 0 1' > "$root/etc/fstab"
    mkdir -p "$root/root/.ssh" "$root/etc/systemd/network" "$root/etc/systemd/system/multi-user.target.wants"
    cp "$VM_CACHE/key.pub" "$root/root/.ssh/authorized_keys"
    chmod 700 "$root/root/.ssh"
    printf '[Match]\nName=en* eth*\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nDNS=10.0.2.3\n' > "$root/etc/systemd/network/10-wired.network"
    # Emulation is slow, on a busy machine ten times as slow: no unit fails for that, and nothing runs that is not looked at.
    mkdir -p "$root/etc/systemd/system.conf.d"
    printf '[Manager]\nDefaultTimeoutStartSec=30min\nDefaultDeviceTimeoutSec=30min\n' > "$root/etc/systemd/system.conf.d/slow.conf"
    chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer man-db.timer e2scrub_all.timer dpkg-db-backup.timer 2> /dev/null
    chroot "$root" systemctl --quiet enable systemd-networkd systemd-resolved ssh 2> /dev/null
    ln -sf /run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
}

# debian_mirror: where this machine gets Debian's packages from
debian_mirror() {
    local mirror
    mirror=$(cat /etc/apt/sources.list.d/*.sources 2> /dev/null | awk '/^URIs:/ {print $2; exit}')
    [ -n "$mirror" ] || mirror=$(awk '$1 == "deb" {for (i = 2; i <= NF; i++) if ($i ~ /^https?:/) {print $i; exit}}' /etc/apt/sources.list)
    [ -n "$mirror" ] || die "no mirror of Debian's packages in /etc/apt/sources.list or sources.list.d"
    printf '%s\n' "$mirror"
}

vm_disk() {
    truncate -s 8G "$VM_WORK/disk"
    mke2fs -q -F -t ext4 -d "$VM_CACHE/$1/root" "$VM_WORK/disk" || die "no disk could be made of $VM_CACHE/$1/root"
}

vm_boot() {
    local root=$VM_CACHE/$1/root
    VM_PORT=$((20000 + RANDOM % 10000))
    nice -n 10 qemu-system-x86_64 -nodefaults -accel tcg,thread=multi -cpu max -smp 2 -m "$VM_MEMORY_MIB" -display none -monitor none \
        -serial "file:$VM_WORK/console" -kernel "$(ls "$root"/boot/vmlinuz-* | tail -n 1)" -initrd "$(ls "$root"/boot/initrd.img-* | tail -n 1)" \
        -append "root=/dev/vda rw console=ttyS0 systemd.show_status=no panic=-1" -drive "file=$VM_WORK/disk,format=raw,if=virtio,cache=unsafe" \
        -netdev "user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:$VM_PORT-:22" -device virtio-net-pci,netdev=n -device virtio-rng-pci &
    VM_PID=$!
    wait_for "$VM_BOOT_SECONDS" "the machine to answer (console: $VM_WORK/console)" vm_answers
}

vm_answers() { kill -0 "$VM_PID" && vm_run true; }

# vm_run COMMAND...: as root in the machine
vm_run() {
    ssh -q -n -p "$VM_PORT" -i "$VM_CACHE/key" -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=30 -o StrictHostKeyChecking=no \
        -o UserKnownHostsFile=/dev/null root@127.0.0.1 "$@"
}

# vm_send FILE... FOLDER
vm_send() {
    scp -q -P "$VM_PORT" -i "$VM_CACHE/key" -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "${@:1:$#-1}" "root@127.0.0.1:${!#}"
}

vm_end() {
    kill "$VM_PID" 2> /dev/null || true
    wait "$VM_PID" 2> /dev/null || true
}

vm_stop() {
    local status=$?
    if [ -n "${VM_PID:-}" ] && [ "$1" = yes ]; then
        say "kept: ssh -p ${VM_PORT:-} -i $VM_CACHE/key root@127.0.0.1, console in $VM_WORK/console; end it with: kill $VM_PID"
        return $status
    fi
    [ -z "${VM_PID:-}" ] || vm_end
    [ -z "${VM_WORK:-}" ] || rm -rf "$VM_WORK"
    return $status
}
