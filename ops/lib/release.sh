# The parts of a release. Sourced by ops/package.

# release_build ARCH: the binary; sets `binary`
release_build() {
    local target=
    have cargo || die "cargo is missing: install Rust $(rust_needed) or newer"
    case $1 in
        "$(dpkg --print-architecture)") ;;
        arm64) target=aarch64-unknown-linux-gnu ;;
        amd64) target=x86_64-unknown-linux-gnu ;;
    esac
    if [ -z "$target" ]; then
        build --release
        binary=$BINARY
        return
    fi
    local gnu=${target/-unknown/}
    have "$gnu-gcc" "$gnu-g++" || die "no compiler for $1: apt-get install crossbuild-essential-$1"
    [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] ||
        die "this Rust has no standard library for $target, and none can be made from nothing: rustup target add $target, or build on a machine of that architecture"
    say "cross-building for $1 (RocksDB too: half an hour on two cores)"
    (
        cd "$REPO"
        name=${target//-/_}
        export "CC_$name=$gnu-gcc" "CXX_$name=$gnu-g++" "AR_$name=$gnu-ar" "CARGO_TARGET_${name^^}_LINKER=$gnu-gcc"
        # bindgen reads the other architecture's headers.
        export "BINDGEN_EXTRA_CLANG_ARGS_$name=--target=$gnu --sysroot=/usr/$gnu"
        cargo build --quiet --release -p trireme --target "$target"
    )
    binary=$CARGO_TARGET_DIR/$target/release/trireme
}

# release_check_arch BINARY ARCH: a package must not hold another architecture's program
release_check_arch() {
    local machine
    # Bytes 18 and 19 of an ELF header.
    machine=$(od -An -tx1 -j18 -N2 "$1" | tr -d ' \n')
    case $2:$machine in
        amd64:3e00 | arm64:b700) ;;
        *) die "$1 is not a program for $2" ;;
    esac
}

# runs_here ARCH: whether this machine runs such programs
runs_here() { [ "$1" = "$(dpkg --print-architecture)" ]; }

# release_tree BINARY ARCH FOLDER: what is installed, below usr/
release_tree() {
    local binary=$1 arch=$2 tree=$3 share=$3/usr/share doc=$3/usr/share/doc/trireme strip=strip file
    mkdir -p "$tree/usr/bin" "$tree/usr/lib/systemd/system" "$share/trireme/images" "$doc/examples" \
        "$share/man/man1" "$share/bash-completion/completions"
    install -m 755 "$binary" "$tree/usr/bin/trireme"
    runs_here "$arch" || strip=aarch64-linux-gnu-strip
    "$strip" --strip-unneeded "$tree/usr/bin/trireme"
    for file in server agent; do
        sed 's#/usr/local/bin/trireme#/usr/bin/trireme#' "$REPO/ops/systemd/trireme-$file.service" > "$tree/usr/lib/systemd/system/trireme-$file.service"
    done
    cp -r "$REPO/ops/haproxy" "$REPO/ops/keepalived" "$REPO/ops/prometheus" "$REPO/ops/grafana" "$REPO/ops/containerd" "$share/trireme/"
    cp "$REPO/ops/systemd/trireme-server.service.d/control-plane-only.conf" "$share/trireme/"
    cp "$REPO/ops/systemd/config.yaml" "$doc/examples/"
    cp "$REPO"/docs/*.md "$doc/"
    sed 's/^/ /; s/^ $/ ./' "$REPO/LICENSE" | { printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: Apache-2.0\n'; cat; } > "$doc/copyright"
    gzip -9n < "$REPO/CHANGELOG.md" > "$doc/changelog.gz"
    release_pause "$arch" "$share/trireme/images"
    # The binary prints these files itself; one of another architecture does not run here.
    if runs_here "$arch"; then
        "$tree/usr/bin/trireme" completion bash > "$share/bash-completion/completions/trireme"
        release_manual "$tree/usr/bin/trireme" | gzip -9n > "$share/man/man1/trireme.1.gz"
    else
        say "no manual page and no completion for $arch: the binary that prints them does not run here"
        rmdir "$share/man/man1" "$share/man" "$share/bash-completion/completions" "$share/bash-completion"
    fi
    chmod -R u=rwX,go=rX "$tree"
}

# release_pause ARCH FOLDER: the image that holds a pod's namespaces, for machines without a registry
release_pause() {
    local compiler=gcc
    runs_here "$1" || compiler=aarch64-linux-gnu-gcc
    have "$compiler" || die "$compiler is missing: it compiles the pause program"
    (IMAGES=$2 CC=$compiler IMAGE_ARCH=$1 make_pause)
}

# release_manual BINARY: a manual page out of the help texts
release_manual() {
    local command
    printf '.TH TRIREME 1 "" "trireme %s" "Trireme"\n.SH NAME\ntrireme \\- a Kubernetes distribution in one binary\n' "$version"
    printf '.SH SYNOPSIS\n.B trireme\n.I COMMAND\n[options]\n.SH COMMANDS\n'
    help_verbatim "$1"
    for command in $("$1" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p' | grep -vx help); do
        printf '.SH "TRIREME %s"\n' "${command^^}"
        help_verbatim "$1" "$command"
    done
    printf '.SH FILES\n.TP\n/etc/trireme/config.yaml\noptions, without the dashes\n.TP\n/etc/trireme/kubeconfig.yaml\nan administrator'"\\\\(cq"'s access, written by a server\n'
    printf '.TP\n/var/lib/trireme\nthe cluster'"\\\\(cq"'s state, and a node'"\\\\(cq"'s pods\n.SH SEE ALSO\n/usr/share/doc/trireme\n'
}

# help_verbatim BINARY [COMMAND]: its help, as it is, in roff
help_verbatim() {
    local binary=$1; shift
    printf '.nf\n'
    COLUMNS=90 "$binary" "$@" --help | sed 's/\\/\\e/g; s/-/\\-/g; s/^\([.'"'"']\)/\\\&\1/'
    printf '.fi\n'
}

# release_deb TREE ARCH VERSION OUT
release_deb() {
    local tree=$1 arch=$2 version=$3 out=$4 root depends script
    root=$(mktemp -d "$work/deb.XXXXXX")
    chmod 755 "$root"
    cp -r "$tree/." "$root/"
    mkdir "$root/DEBIAN"
    depends=$(release_libraries "$tree/usr/bin/trireme" "$arch")
    cat > "$root/DEBIAN/control" <<CONTROL
Package: trireme
Version: $version
Architecture: $arch
Maintainer: The Trireme project <trireme@localhost>
Installed-Size: $(du -sk "$tree" | cut -f1)
Depends: $depends, containerd | containerd.io, runc | containerd.io, nftables, conntrack, iproute2, kmod
Recommends: ca-certificates
Section: admin
Priority: optional
Description: Kubernetes distribution in one binary
 Three servers keep the cluster's state in a replicated store of their own and run
 the API server, the scheduler and the controllers. Agents on the nodes run pods
 in containerd, and do what kubelet, kube-proxy, a CNI plugin and cluster DNS do.
 .
 Nothing is started by the installation: see /usr/share/doc/trireme/install.md.
CONTROL
    for script in postinst prerm postrm; do install -m 755 "$REPO/ops/packaging/deb/$script" "$root/DEBIAN/$script"; done
    (cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum > DEBIAN/md5sums)
    dpkg-deb --build --root-owner-group -Zxz "$root" "$out/trireme_${version}_$arch.deb" > /dev/null
}

# release_libraries BINARY ARCH: the packages of the libraries it is linked with
release_libraries() {
    local dir found
    if ! runs_here "$2"; then
        # The other architecture's packages are not installed here; Debian 12's names and versions.
        echo "libc6 (>= 2.34), libgcc-s1, libstdc++6 (>= 12)"
        return
    fi
    dir=$(mktemp -d "$work/shlibs.XXXXXX")
    mkdir "$dir/debian" && printf 'Source: trireme\n\nPackage: trireme\nArchitecture: any\n' > "$dir/debian/control"
    found=$(cd "$dir" && dpkg-shlibdeps -O "$1" 2> "$dir/log") || { cat "$dir/log" >&2; die "dpkg-shlibdeps failed"; }
    echo "${found#shlibs:Depends=}"
}

# release_tarball TREE ARCH VERSION OUT: the same files below one folder, and the install script, also beside it
release_tarball() {
    local name=trireme-$3-linux-$2 root
    root=$work/$name
    mkdir "$root"
    cp -r "$1/usr/." "$root/"
    # Below lib/systemd they name /usr/bin; the install script writes the folder that it was given.
    install -m 755 "$REPO/ops/packaging/install.sh" "$REPO/ops/packaging/uninstall.sh" "$root/"
    install -m 755 "$REPO/ops/packaging/install.sh" "$4/install.sh"
    tar --sort=name --owner=0 --group=0 --numeric-owner -C "$work" -czf "$4/$name.tar.gz" "$name"
}
