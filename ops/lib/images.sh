# Container images made offline, from what the machine has. Sourced by ops/up and the test harness.

# write_image TARBALL NAME ROOTFS CONFIG_JSON: a docker archive with one layer
write_image() {
    local tarball=$1 name=$2 rootfs=$3 config=$4 work layer
    work=$(mktemp -d)
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$rootfs" -cf "$work/layer.tar" .
    layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
    printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created_by":"trireme ops"}]}' \
        "${IMAGE_ARCH:-$(dpkg --print-architecture)}" "$config" "$layer" > "$work/config.json"
    printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$name" > "$work/manifest.json"
    tar -C "$work" -cf "$tarball.new" manifest.json config.json layer.tar
    mv "$tarball.new" "$tarball"
    rm -rf "$work"
}

# make_images: pause.tar and box.tar in $IMAGES, once for each state of this file and of ops/images
make_images() {
    local recipe
    mkdir -p "$IMAGES"
    recipe=$(cat "$REPO/ops/lib/images.sh" "$REPO"/ops/images/* | sha256sum)
    [ "$(cat "$IMAGES/recipe" 2> /dev/null)" != "$recipe" ] || return 0
    make_pause
    make_box
    echo "$recipe" > "$IMAGES/recipe"
}

make_pause() {
    local root; root=$(mktemp -d)
    "${CC:-gcc}" -Os -static -s -o "$root/pause" "$REPO/ops/images/pause.c"
    write_image "$IMAGES/pause.tar" localhost/trireme/pause:1 "$root" '{"Entrypoint":["/pause"]}'
    rm -rf "$root"
}

# A small userland: busybox with the host's C library beside it (its resolver needs the NSS modules), a web page that names its pod.
make_box() {
    local root lib; root=$(mktemp -d)
    mkdir -p "$root"/{bin,etc,tmp,proc,sys,dev,root,www/cgi-bin}
    chmod 1777 "$root/tmp"
    cp "$(readlink -f "$(command -v busybox)")" "$root/bin/busybox"
    local applet
    for applet in $("$root/bin/busybox" --list); do [ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"; done
    rm -f "$root/bin/wget"
    install -m 755 "$REPO/ops/images/wget" "$root/bin/wget"
    for lib in libc.so.6 libresolv.so.2 libnss_dns.so.2 libnss_files.so.2 ld-linux-x86-64.so.2 ld-linux-aarch64.so.1; do
        local found; found=$(ls /lib/*/"$lib" /lib64/"$lib" /lib/"$lib" 2>/dev/null | head -n 1) || true
        [ -n "$found" ] && mkdir -p "$root$(dirname "$found")" && cp -L "$found" "$root$found"
    done
    [ ! -e /lib64/ld-linux-x86-64.so.2 ] || { mkdir -p "$root/lib64"; cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"; }
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' > "$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' > "$root/etc/group"
    printf 'hosts: files dns\n' > "$root/etc/nsswitch.conf"
    printf '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n%%s %%s\\n" "$(hostname)" "$VERSION"\n' > "$root/www/cgi-bin/who"
    chmod 755 "$root/www/cgi-bin/who"
    printf 'trireme\n' > "$root/www/index.html"
    write_image "$IMAGES/box.tar" localhost/trireme/box:1 "$root" '{"Cmd":["/bin/httpd","-f","-p","8080","-h","/www"],"Env":["PATH=/bin"],"WorkingDir":"/"}'
    rm -rf "$root"
}
