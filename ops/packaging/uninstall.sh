#!/bin/sh
# Removes Trireme and everything it made on this machine, its data too. Installed by install.sh as trireme-uninstall.sh.
set -u
bin_dir=/usr/local/bin
unit_dir=/etc/systemd/system
config=/etc/trireme/config.yaml

# option NAME DEFAULT: what the configuration file says
option() {
    value=$(sed -n "s/^$1:[[:space:]]*//p" "$config" 2> /dev/null | sed "s/[[:space:]]*#.*//; s/^[\"']//; s/[\"']\$//" | head -n 1)
    echo "${value:-$2}"
}

[ "$(id -u)" = 0 ] || { echo "needs root" >&2; exit 1; }
systemctl disable --now trireme-server.service trireme-agent.service 2> /dev/null
data=$(option data-dir /var/lib/trireme)
if [ -d "$data/agent" ]; then
    "$bin_dir/trireme" cleanup --data-dir "$data" --cgroup-root "$(option cgroup-root /)" \
        --container-runtime-endpoint "$(option container-runtime-endpoint /run/containerd/containerd.sock)" ||
        { echo "the node could not be taken off this machine (see above): nothing was removed; start containerd and try again" >&2; exit 1; }
fi
rm -rf "$unit_dir/trireme-server.service" "$unit_dir/trireme-server.service.d" "$unit_dir/trireme-agent.service"
systemctl daemon-reload
# A unit that failed is remembered after its file is gone.
systemctl reset-failed trireme-server.service trireme-agent.service 2> /dev/null
if [ -f /etc/containerd/config.toml.before-trireme ]; then
    mv /etc/containerd/config.toml.before-trireme /etc/containerd/config.toml
    systemctl try-restart containerd
fi
rm -rf /etc/trireme /var/lib/trireme "$bin_dir/trireme"
[ "$data" = /var/lib/trireme ] || echo "$data, named by the configuration, is kept" >&2
rm -f "$bin_dir/trireme-uninstall.sh"
