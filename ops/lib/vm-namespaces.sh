# ops/test vm --namespaces: the same root, whose systemd runs as the first process of namespaces on this machine's kernel. Sourced by vm.sh in place
# of the emulated machine; the checks are the same. As fast as this machine, so it is the quick way to see systemd, the package and the
# units at work. What it does not show: Debian's kernel and its modules, and cgroup v2 where this machine has v1.

VM_CGROUP=trireme-vm-$$

vm_disk() { cp -a "$VM_CACHE/$1/root" "$VM_WORK/root" && vm_fit_root "$VM_WORK/root"; }

# What belongs to the kernel is left alone, and the network is made from outside.
vm_fit_root() {
    local unit
    for unit in systemd-{sysctl,networkd,networkd-wait-online,udevd,udev-trigger,modules-load,remount-fs,timesyncd}.service systemd-networkd.socket ssh.service apparmor.service \
        sys-kernel-{config,debug,tracing}.mount; do
        ln -sf /dev/null "$1/etc/systemd/system/$unit"
    done
    : > "$1/etc/fstab"
    mkdir -p "$1/etc/systemd/resolved.conf.d" "$1/etc/systemd/system/containerd.service.d"
    printf '[Resolve]\nDNS=10.0.2.3\n' > "$1/etc/systemd/resolved.conf.d/vm.conf"
    # Without CAP_SYS_RESOURCE no process gets a negative oom_score_adj.
    printf '[Service]\nExecStartPre=-/bin/sed -i "/^ *sandbox_image/{n;/restrict_oom/!s/^/restrict_oom_score_adj = true\\\\n/}" /etc/containerd/config.toml\n' \
        > "$1/etc/systemd/system/containerd.service.d/vm.conf"
}

vm_boot() {
    vm_cgroups
    # shellcheck disable=SC2046 # one word for each tree
    setsid bash "$REPO/ops/lib/vm-init.sh" "$VM_WORK/root" "$1" "$VM_CGROUP" $(vm_trees) > "$VM_WORK/console" 2>&1 < /dev/null &
    VM_PID=$!
    wait_for 120 "systemd (see $VM_WORK/console)" vm_answers
    wait_for 120 "the machine to be up" vm_run 'systemctl is-system-running | grep -E "running|degraded"'
}

# A group of our own in each hierarchy; vm-init.sh goes into it, and it is the root of what the machine sees.
vm_cgroups() {
    local tree
    for tree in $(vm_trees); do
        mkdir -p "$tree/$VM_CGROUP"
        if [ -f "$tree/cpuset.mems" ]; then cat "$tree/cpuset.cpus" > "$tree/$VM_CGROUP/cpuset.cpus"; cat "$tree/cpuset.mems" > "$tree/$VM_CGROUP/cpuset.mems"; fi
    done
}

vm_trees() { awk '$3 == "cgroup" || $3 == "cgroup2" {print $2}' /proc/mounts; }

# vm_first_process: of the machine, as this machine numbers it
vm_first_process() { local booting; booting=$(pgrep -P "$VM_PID" -x unshare) && pgrep -P "$booting" | head -n 1; }

vm_answers() { kill -0 "$VM_PID" && vm_run true; }

vm_run() {
    local process; process=$(vm_first_process) && [ -n "$process" ] || return 255
    nsenter --target "$process" --mount --net --pid --uts --ipc --cgroup -- \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root bash -c "cd /root; $*" < /dev/null
}

vm_send() {
    local to=${!#}
    [ "${to%/}" = "$to" ] || mkdir -p "$VM_WORK/root$to"
    cp "${@:1:$#-1}" "$VM_WORK/root$to"
}

vm_end() {
    local tree process
    process=$(vm_first_process) || true
    kill "$VM_PID" 2> /dev/null || true
    [ -z "$process" ] || kill -KILL "$process" 2> /dev/null || true
    wait "$VM_PID" 2> /dev/null || true
    # The deepest first; what has just ended may be in the way for a moment.
    for tree in $(vm_trees); do
        for _ in 1 2 3 4 5; do
            find "$tree/$VM_CGROUP" -depth -type d -exec rmdir {} + 2> /dev/null || true
            [ -d "$tree/$VM_CGROUP" ] || break
            sleep 1
        done
    done
}

# A machine's end is not seen on a console here: systemd's patience with processes that stay is 90 s.
vm_reboot() {
    local began=$SECONDS process
    process=$(vm_first_process)
    vm_run 'rm -f /var/tmp/ended; systemctl reboot' || true
    while [ -d "/proc/$process" ] && [ $((SECONDS - began)) -lt 150 ]; do sleep 0.5; done
    [ ! -d "/proc/$process" ] || { echo "it does not end"; return 1; }
    echo "it took $((SECONDS - began)) s to end"
    [ $((SECONDS - began)) -lt 80 ] || return 1
    # vm-init.sh boots it again.
    vm_until 120 vm_run 'systemctl is-system-running | grep -E "running|degraded"' && vm_run cat /var/tmp/ended || { echo "the preStop hook did not run"; return 1; }
}

# The kernel here may have all modules built in.
vm_no_modules() { true; }

vm_limits() {
    local process found
    process=$(vm_run "pgrep -x -f '$3' | head -n 1") || return
    if vm_run '[ -f /sys/fs/cgroup/cgroup.controllers ]'; then vm_limits_v2 "$@"; return; fi
    found=$(vm_run "
        memory=\$(sed -n 's/^[0-9]*:memory://p' /proc/$process/cgroup) cpu=\$(sed -n 's/^[0-9]*:cpu[^:]*://p' /proc/$process/cgroup | head -n 1)
        echo \$memory; cd /sys/fs/cgroup/memory\$memory && cat memory.limit_in_bytes ../memory.limit_in_bytes; cd /sys/fs/cgroup/cpu\$cpu && cat cpu.cfs_quota_us ../cpu.cfs_quota_us" | tr '\n' ' ')
    echo "$found"
    case $found in /*"${4:-kubepods}"*" $2 $2 50000 50000 ") ;; *) return 1 ;; esac
}
