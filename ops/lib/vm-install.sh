# How Trireme is installed on a machine and removed: package, install script, check-host. Sourced by vm.sh.

# docs/install.md, "One machine", word for word. apt takes the packages from its cache: the machine has no network.
vm_install() {
    vm_send "$VM_WORK"/package/trireme_*.deb /root/trireme.deb || return
    vm_send "$(command -v kubectl)" /usr/local/bin/kubectl || return
    vm_run 'DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends /root/trireme.deb' || return
    vm_run 'install -m 644 /usr/share/trireme/containerd/config.toml /etc/containerd/config.toml && systemctl restart containerd' || return
    vm_run 'echo "cluster-init: true" > /etc/trireme/config.yaml' || return
    vm_send "$IMAGES/box.tar" /var/lib/trireme/agent/images/
}

vm_start() { vm_run 'systemctl enable --now trireme-server && systemctl is-active trireme-server'; }

# vm_complains COMMAND TEXT...: it fails with exit code 1, and its output has all the texts, wherever its lines end
vm_complains() {
    local said status=0 text
    said=$(vm_run "$1" 2>&1) || status=$?; shift
    printf '%s\n' "$said"
    [ $status = 1 ] || { echo "exit code $status"; return 1; }
    said=$(tr -s ' \n' ' ' <<< "$said")
    for text in "$@"; do grep -qF -- "$text" <<< "$said" || { echo "nothing is said of: $text"; return 1; }; done
}

vm_port_in_use() {
    local result
    vm_run 'systemd-run -q --unit in-use systemd-socket-activate -l 10250 cat' || return
    vm_until 30 vm_run 'ss -lnt | grep ":10250 "' || return
    vm_complains 'trireme check-host' 'PROBLEM' 'in use: 10250/tcp (kubelet)' 'ss -lntup' 'one problem'
    result=$?
    vm_run systemctl stop in-use
    return $result
}

vm_no_modules() {
    vm_complains "unshare -m sh -c 'mount -t tmpfs none /usr/lib/modules && trireme check-host'" \
        'module br_netfilter' 'not in this kernel' 'modprobe br_netfilter'
}

vm_purge() {
    vm_run 'DEBIAN_FRONTEND=noninteractive apt-get purge -y -q trireme' || return
    vm_nothing_left
}

# What a node makes on its machine, and what was installed.
vm_nothing_left() {
    local left
    left=$(vm_run '
        ip -o link | grep -E "cni0|flannel|veth"
        ip -o address | grep -E " 10\.4[23]\."
        ip route | grep -E "^10\.4[23]\."
        nft list tables | grep -v "table \(ip\|ip6\|inet\) \(filter\|nat\|mangle\|raw\|security\)$"
        iptables-save | grep -E "10\.4[23]\.|trireme"
        [ "$(cat /proc/sys/net/ipv4/ip_forward)" = 0 ] || echo "ip_forward is 1"
        grep /var/lib/trireme /proc/mounts
        find /sys/fs/cgroup -name "kubepods*" -prune
        ls -d /var/lib/trireme /etc/trireme 2> /dev/null
        ls -d /etc/systemd/system/trireme* /lib/systemd/system/trireme* 2> /dev/null
        systemctl list-units --all --no-legend --plain "kubepods*" "trireme*"
        pgrep -a containerd-shim
        command -v trireme
        true')
    [ -z "$left" ] || { echo "left: $left"; return 1; }
}

vm_script_server() {
    vm_send "$VM_WORK"/package/install.sh "$VM_WORK"/package/SHA256SUMS "$VM_WORK"/package/trireme-*.tar.gz /root/ || return
    # A configuration of the administrator's own, which comes back at the end.
    vm_run 'echo "version = 2" > /etc/containerd/config.toml && systemctl restart containerd' || return
    vm_run 'cd /root && INSTALL_TRIREME_EXEC="server --cluster-init --disable-agent" INSTALL_TRIREME_TARBALL=$(ls trireme-*.tar.gz) sh install.sh' || return
    vm_run 'systemctl is-active trireme-server && grep -q "^NoNewPrivs:.*1" /proc/$(systemctl show -P MainPID trireme-server)/status' || return
    vm_run 'kubectl --kubeconfig /etc/trireme/kubeconfig.yaml get --raw /readyz'
}

# A server's own machine joins with the server token: with the others' a stranger could take its name.
vm_script_agent() {
    vm_run 'cd /root && TRIREME_SERVER=https://127.0.0.1:6443 TRIREME_TOKEN=$(cat /var/lib/trireme/server/token) INSTALL_TRIREME_TARBALL=$(ls trireme-*.tar.gz) sh install.sh' || return
    vm_send "$IMAGES/box.tar" /var/lib/trireme/agent/images/ || return
    vm_until 300 vm_node_ready
}

vm_uninstall() {
    vm_run trireme-uninstall.sh || return
    vm_run '[ "$(cat /etc/containerd/config.toml)" = "version = 2" ]' || { echo "/etc/containerd/config.toml is not what it was"; return 1; }
    vm_nothing_left
}
