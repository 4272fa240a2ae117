# A machine of installation.rs: this one under an overlay in memory, in namespaces of its own. A release is in /release. systemd is not run: what
# it is asked is written to /systemctl.log.
#
#   unshare --mount --net --pid --fork sh machine.sh FOLDER REPOSITORY BINARY SCRIPT
set -eu
folder=$1 repository=$2 binary=$3 script=$4
mount -t tmpfs none "$folder"
root=$folder/root release=$folder/root/release
mkdir "$folder/upper" "$folder/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
ip link set lo up
rm -rf "$root/etc/trireme" "$root/var/lib/trireme" "$root"/etc/systemd/system/trireme* "$root"/usr/local/bin/trireme*
mkdir -p "$root/etc/containerd" "$root/run/systemd/system" "$release/bin" "$release/lib/systemd/system" "$release/share/trireme/images"
echo '# somebody wrote this' > "$root/etc/containerd/config.toml"
printf '#!/bin/sh\necho "$@" >> /systemctl.log\n' > "$root/usr/local/sbin/systemctl"
chmod 755 "$root/usr/local/sbin/systemctl"
cp "$repository/ops/packaging/install.sh" "$repository/ops/packaging/uninstall.sh" "$release/"
cp "$repository"/ops/systemd/*.service "$release/lib/systemd/system/"
cp "$repository/ops/systemd/trireme-server.service.d/control-plane-only.conf" "$release/share/trireme/"
cp -r "$repository/ops/containerd" "$release/share/trireme/"
echo pause > "$release/share/trireme/images/pause.tar"
touch "$release/bin/trireme"
mount --bind "$binary" "$release/bin/trireme"
exec chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root sh -c "$script"
