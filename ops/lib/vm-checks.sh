# The checks of an installed machine, one after the other. Sourced by vm.sh.

VM_POD_SECONDS=600
passed=0 failed=0

# check NAME COMMAND...: runs it, and says how it went
check() {
    local name=$1 began=$SECONDS output; shift
    if output=$("$@" 2>&1); then
        passed=$((passed + 1))
        printf 'ok    %s (%s s)\n' "$name" "$((SECONDS - began))"
    else
        failed=$((failed + 1))
        printf 'FAIL  %s (%s s): %s\n' "$name" "$((SECONDS - began))" "$(tail -n 3 <<< "$output" | tr '\n' ' ')"
    fi
}

k() { vm_run kubectl --kubeconfig /etc/trireme/kubeconfig.yaml "$(printf '%q ' "$@")"; }

# vm_until SECONDS COMMAND...: until it succeeds; the last answer is printed where it does not
vm_until() {
    local end=$((SECONDS + $1)) output; shift
    until output=$("$@" 2>&1); do
        [ $SECONDS -lt $end ] || { printf '%s\n' "$output"; return 1; }
        sleep 2
    done
    printf '%s\n' "$output"
}

vm_checks() {
    check "the package and what it depends on are installed" vm_install
    check "check-host finds no problem" vm_run trireme check-host
    check "check-host names a port in use and the way out" vm_port_in_use
    check "check-host names a module that is not there and the way out" vm_no_modules
    check "the unit is active" vm_start
    check "the node is Ready" vm_until 600 vm_node_ready
    check "check-host finds no problem beside what runs" vm_run trireme check-host
    check "a pod runs" vm_pod web
    check "the kernel holds it to its limits" vm_limits web 67108864 'httpd -f -p 8080 -h /www'
    check "a second pod on the same node runs" vm_pod client
    check "a Service is reached from a pod on the same node" vm_until 120 vm_service
    check "a Service is reached by its name" vm_until 120 vm_name
    check "a Service is reached from the host" vm_until 120 vm_node_port
    check "a hostPort is reached" vm_until 60 vm_host_port
    check "logs" vm_logs
    check "exec" vm_exec
    check "a pod that is not root reads /etc/hosts and its configuration" vm_non_root
    check "a pod with the host's resolver is given one it can reach" vm_resolver
    check "the journal has priorities, and each time once" vm_journal
    check "Services come back after 'nft flush ruleset'" vm_flush
    check "Services are reached although a firewall drops what is forwarded" vm_forward_drop
    check "containers outlive a restart of the unit" vm_keeps_containers systemctl restart trireme-server
    check "containers outlive an upgrade of the package" vm_keeps_containers DEBIAN_FRONTEND=noninteractive dpkg -i /root/trireme.deb
    check "pods end in order when the machine reboots" vm_reboot
    vm_checks_after_boot
    check "pods run with systemd's cgroups" vm_systemd_cgroups
    check "a pod of before the change leaves no cgroup behind" vm_pod_of_before
    check "pods in systemd's slices end in order when the machine reboots" vm_reboot
    vm_checks_after_boot
    check "after the reboot its limits are in a slice" vm_limits web 67108864 'httpd -f -p 8080 -h /www' kubepods-burstable.slice
    check "no unit has failed" vm_no_failed_unit
    check "a purge leaves nothing behind" vm_purge
    check "the install script installs a server that is no node" vm_script_server
    check "the install script makes the machine its node" vm_script_agent
    check "a pod runs there" vm_pod plain
    check "the uninstall script leaves nothing behind" vm_uninstall
    printf '%s passed, %s failed\n' "$passed" "$failed"
    [ "$failed" = 0 ]
}

vm_checks_after_boot() {
    check "after the reboot the node is Ready" vm_until 900 vm_node_ready
    check "after the reboot the pod runs" vm_until 900 vm_pod_ready web
    check "after the reboot the Service is reached" vm_until 300 vm_service
}

vm_node_ready() { k get nodes -o 'jsonpath={.items[0].status.conditions[?(@.type=="Ready")]}' | grep '"status":"True"'; }

vm_pod() {
    vm_manifest "$1" | vm_apply && vm_until "$VM_POD_SECONDS" vm_pod_ready "$1"
}

vm_apply() {
    local manifest; manifest=$(base64 -w 0)
    vm_run "echo $manifest | base64 -d | kubectl --kubeconfig /etc/trireme/kubeconfig.yaml apply -f -"
}

vm_pod_ready() {
    k wait --for=condition=Ready "pod/$1" --timeout=20s || { k get events --field-selector "involvedObject.name=$1" -o 'jsonpath={.items[-1:].message}'; return 1; }
}

vm_manifest() {
    local image='image: localhost/trireme/box:1, imagePullPolicy: IfNotPresent'
    case $1 in
        web) cat <<YAML
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - {name: web, $image, ports: [{containerPort: 8080, hostPort: 8088}],
     resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {cpu: 500m, memory: 64Mi}},
     command: [sh, -c, "echo web says hello; exec httpd -f -p 8080 -h /www"]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
YAML
            ;;
        client) cat <<YAML
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 15
  containers:
  - {name: client, $image, command: [sh, -c, "trap : TERM; while :; do sleep 1; done"],
     lifecycle: {preStop: {exec: {command: [sh, -c, "date > /trace/ended"]}}}, volumeMounts: [{name: trace, mountPath: /trace}]}
  volumes: [{name: trace, hostPath: {path: /var/tmp, type: Directory}}]
YAML
            ;;
        plain) cat <<YAML
apiVersion: v1
kind: ConfigMap
metadata: {name: plain}
data: {a: content-of-a}
---
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  dnsPolicy: Default
  securityContext: {runAsUser: 1000, runAsNonRoot: true}
  containers:
  - {name: plain, $image, command: [sleep, "36000"], volumeMounts: [{name: cm, mountPath: /cm}]}
  volumes: [{name: cm, configMap: {name: plain, items: [{key: a, path: d/b}]}}]
YAML
            ;;
        driver) cat <<YAML
apiVersion: v1
kind: Pod
metadata: {name: driver}
spec:
  containers:
  - {name: driver, $image, resources: {limits: {cpu: 500m, memory: 48Mi}}, command: [sh, -c, "exec sleep 48484848"]}
YAML
            ;;
    esac
}

# vm_limits POD MEMORY COMMAND_LINE [SLICE]: what the kernel holds the process to, and the pod around it
vm_limits() { vm_limits_v2 "$@"; }

vm_limits_v2() {
    local cgroup found
    cgroup=$(vm_run "sed -n 's/^0:://p' /proc/\$(pgrep -x -f '$3' | head -n 1)/cgroup") || return
    found=$(vm_run "cd '/sys/fs/cgroup$cgroup' && cat memory.max cpu.max ../memory.max ../cpu.max ../../memory.max" | tr '\n' ' ')
    echo "$cgroup: $found"
    # The last is that of all pods, or of a class of them.
    case $found in "$2 50000 100000 $2 50000 100000 "*) ;; *) return 1 ;; esac
    case $cgroup in */"${4:-kubepods}"*) ;; *) return 1 ;; esac
}

vm_service() {
    local address; address=$(k get service web -o 'jsonpath={.spec.clusterIP}') && k exec client -- wget -T 5 -q -O - "http://$address/" | grep trireme
}

vm_name() { k exec client -- wget -T 10 -q -O - http://web.default.svc.cluster.local/ | grep trireme; }

vm_node_port() { vm_run curl -sS --max-time 10 http://10.0.2.15:30080/ | grep trireme; }

vm_host_port() { vm_run curl -sS --max-time 10 http://10.0.2.15:8088/ | grep trireme; }

vm_logs() { vm_until 60 k logs web | grep 'web says hello'; }

vm_exec() { k exec web -- sh -c 'echo in $(hostname)' | grep 'in web'; }

vm_non_root() {
    vm_pod plain && k exec plain -- cat /etc/hosts | grep plain && k exec plain -- cat /cm/d/b | grep content-of-a
}

# systemd-resolved's stub listens on the host's loopback, where no pod reaches it.
vm_resolver() {
    local resolver; resolver=$(k exec plain -- cat /etc/resolv.conf) || return
    echo "$resolver"
    grep -q nameserver <<< "$resolver" && ! grep -q 127.0.0.53 <<< "$resolver"
}

vm_journal() {
    local lines; lines=$(vm_run journalctl -u trireme-server -o cat --no-pager)
    if grep -E '^(<[0-9]>)?[0-9]{4}-[0-9]{2}-[0-9]{2}T' <<< "$lines"; then echo "a line has a time of its own"; return 1; fi
    [ "$(vm_run "journalctl -u trireme-server -p info --no-pager -q | grep -c ' INFO '")" -gt 0 ] || { echo "no INFO at priority info"; return 1; }
    # Lines without a prefix would be shown as info.
    local warnings; warnings=$(grep -c '^ *WARN ' <<< "$lines")
    [ "$(vm_run 'journalctl -u trireme-server -p warning -o cat --no-pager -q' | grep -c '^ *WARN ')" = "$warnings" ]
}

vm_flush() { vm_run nft flush ruleset && vm_until 180 vm_service; }

vm_forward_drop() {
    local result
    vm_run iptables -P FORWARD DROP || return
    vm_until 120 vm_service
    result=$?
    vm_run iptables -P FORWARD ACCEPT
    return $result
}

# vm_keeps_containers COMMAND...: the command starts the unit again; the containers are the same, and have not been started again
vm_keeps_containers() {
    local before after pid ids='jsonpath={range .items[*]}{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{"\n"}{end}'
    before=$(k get pods -o "$ids") || return
    pid=$(vm_run systemctl show -P MainPID trireme-server) || return
    vm_run "$@" || return
    vm_until 300 vm_node_ready && vm_until 180 vm_service || return
    after=$(vm_until 60 k get pods -o "$ids")
    [ "$before" = "$after" ] || { printf 'before: %s after: %s\n' "$before" "$after"; return 1; }
    [ "$(vm_run systemctl show -P MainPID trireme-server)" != "$pid" ] || { echo "the unit was not started again"; return 1; }
}

# The kubelet follows the container runtime.
vm_systemd_cgroups() {
    vm_run "cat >> /etc/containerd/config.toml <<'END'
    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]
      SystemdCgroup = true
END" || return
    vm_run 'systemctl restart containerd && systemctl restart trireme-server' || return
    vm_until 600 vm_node_ready || return
    vm_pod driver || return
    vm_limits driver 50331648 'sleep 48484848' kubepods.slice || return
    vm_run systemctl daemon-reload
    vm_limits driver 50331648 'sleep 48484848' kubepods.slice || { echo "since systemd was reloaded"; return 1; }
    k delete pod driver --timeout=180s || return
    vm_until 60 vm_run "! find /sys/fs/cgroup -name 'kubepods-pod*' | grep ."
}

vm_pod_of_before() {
    local uid
    uid=$(k get pod plain -o 'jsonpath={.metadata.uid}') || return
    k delete pod plain --timeout=180s || return
    vm_until 60 vm_run "! find /sys/fs/cgroup -name '*$uid*' -o -name '*${uid//-/_}*' | grep ."
}

# systemd names what it waits for at the end, outside all units, and kills it after 90 seconds.
vm_reboot() {
    local boot ends hung
    hung=$(grep -ac 'Waiting for process' "$VM_WORK/console")
    ends=$(grep -ac 'Sending SIGTERM to remaining processes' "$VM_WORK/console")
    boot=$(vm_run 'rm -f /var/tmp/ended; cat /proc/sys/kernel/random/boot_id') || return
    vm_run systemctl reboot || true
    vm_until "$VM_BOOT_SECONDS" vm_booted_again "$boot" > /dev/null || { echo "it did not come back"; return 1; }
    [ "$(grep -ac 'Sending SIGTERM to remaining processes' "$VM_WORK/console")" -gt "$ends" ] || { echo "the console does not show the machine's end"; return 1; }
    if [ "$(grep -ac 'Waiting for process' "$VM_WORK/console")" -gt "$hung" ]; then
        grep -a 'Waiting for process' "$VM_WORK/console" | tail -n 1
        return 1
    fi
    vm_run cat /var/tmp/ended || { echo "the preStop hook did not run"; return 1; }
}

vm_booted_again() { local now; now=$(vm_run cat /proc/sys/kernel/random/boot_id) && [ "$now" != "$1" ]; }

vm_no_failed_unit() {
    local units; units=$(vm_run systemctl --failed --no-legend --plain)
    [ -z "$units" ] || { echo "$units"; return 1; }
}
