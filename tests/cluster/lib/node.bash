# shellcheck shell=bash
# A one-node Kubernetes on this machine: containerd, etcd, the control plane, kubelet, kube-proxy and CoreDNS, each a process
# of the host, all of them in control groups of their own. Sourced by up, down and env; never run.
#
# Touches, and node_down removes: $state (one fixed place, so that any checkout adopts or clears what another left),
# the interfaces liaison0 (the node's address) and liaison-pods (the pods' bridge), netfilter chains KUBE-* and CNI-*, the
# control groups /liaison-cluster, a few sysctls (their former values are kept), /var/log/containers, /var/lib/kubelet.
# Every port is bound to the node's own address, which no other machine can reach.

readonly state=/var/lib/liaison-cluster
readonly node_ip=10.247.0.1 node_name=liaison pod_network=10.244.0.0/16 service_network=10.96.0.0/16 dns_ip=10.96.0.10
readonly dns_port=10053 socket=$state/run/containerd.sock cgroup=liaison-cluster
readonly daemons=(containerd etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy coredns)
readonly node_packages=(containerd runc containernetworking-plugins iptables iproute2 conntrack socat ethtool kmod openssl
  curl ca-certificates buildah mmdebstrap)
# For the parts in Go that also read the environment: none of their talk may go by way of a proxy.
[[ ,${NO_PROXY:-}, == *,$node_ip,* ]] ||
  NO_PROXY=${NO_PROXY:+$NO_PROXY,}$node_ip,127.0.0.1,localhost,.svc,$service_network,$pod_network
no_proxy=$NO_PROXY
export NO_PROXY no_proxy

# ---- up

node_up() {
  one_at_a_time
  need_packages "${node_packages[@]}"
  local name bin=$state/bin
  if [[ -d $state/pki ]] && ! same_boot; then
    say "clearing a cluster from before this machine's last start"
    node_clear
  fi
  mkdir -p "$bin" "$state/log" "$state/pid" "$state/run"
  cat /proc/sys/kernel/random/boot_id >"$state/boot_id"
  # A running cluster keeps the programs that it was started with, whichever checkout asks.
  if ! alive kube-apiserver; then
    for name in kube coredns pause; do
      ensure_program "$name"
      ln -sfn "$program"/* "$bin/"
    done
    printf '#!/bin/sh\n# The containerd of the test cluster.\nexec /usr/bin/ctr --address %s "$@"\n' "$socket" >"$bin/ctr.new"
    chmod +x "$bin/ctr.new" && mv "$bin/ctr.new" "$bin/ctr"
  fi
  local started=$SECONDS
  if ! node_start; then
    say "what an earlier run left cannot be used; clearing it and starting afresh"
    node_clear
    node_up_again
    return 0
  fi
  if [[ ! -x $bin/helm ]]; then
    ensure_program helm
    ln -sfn "$program/helm" "$bin/helm"
  fi
  say "one-node Kubernetes $("$bin/kubectl" version --client -o yaml | sed -n 's/ *gitVersion: //p') is up ($((SECONDS - started)) s)"
}

# Only the part of node_up after clearing; a second failure is final.
node_up_again() {
  [[ -z ${cleared:-} ]] || die "the cluster does not become ready; logs are in $state/log"
  cleared=yes
  node_up
}

same_boot() { [[ $(cat "$state/boot_id" 2>/dev/null) == "$(cat /proc/sys/kernel/random/boot_id)" ]]; }

# node_start: starts whatever does not run yet; succeeds when the node is Ready.
node_start() {
  network_up
  cgroups_up
  certificates
  configuration
  in_cgroup containerd containerd --config "$state/etc/containerd.toml"
  soon 20 "$bin/ctr" version || return 1
  import_pause || return 1
  in_cgroup etcd "$bin/etcd" --name=default --data-dir="$state/etcd" --unsafe-no-fsync --log-level=warn \
    --listen-client-urls=https://$node_ip:2379 --advertise-client-urls=https://$node_ip:2379 \
    --listen-peer-urls=http://127.0.0.1:22380 --initial-advertise-peer-urls=http://127.0.0.1:22380 \
    --initial-cluster=default=http://127.0.0.1:22380 --client-cert-auth --trusted-ca-file="$state/pki/ca.crt" \
    --cert-file="$state/pki/etcd.crt" --key-file="$state/pki/etcd.key"
  local flags
  mapfile -t flags < <(api_server_flags $node_ip 6443)
  in_cgroup kube-apiserver "$bin/kube-apiserver" "${flags[@]}" --etcd-servers=https://$node_ip:2379 \
    --etcd-cafile="$state/pki/ca.crt" --etcd-certfile="$state/pki/etcd-client.crt" --etcd-keyfile="$state/pki/etcd-client.key" \
    --kubelet-client-certificate="$state/pki/kubelet-client.crt" --kubelet-client-key="$state/pki/kubelet-client.key" \
    --kubelet-certificate-authority="$state/pki/ca.crt" --kubelet-preferred-address-types=InternalIP --allow-privileged
  soon 60 curl -sf --max-time 2 --cacert "$state/pki/ca.crt" https://$node_ip:6443/readyz || return 1
  in_cgroup kube-controller-manager "$bin/kube-controller-manager" --kubeconfig="$state/etc/kube-controller-manager.kubeconfig" \
    --bind-address=$node_ip --use-service-account-credentials --root-ca-file="$state/pki/ca.crt" \
    --service-account-private-key-file="$state/pki/sa.key" --leader-elect=false \
    --cluster-signing-cert-file="$state/pki/ca.crt" --cluster-signing-key-file="$state/pki/ca.key"
  in_cgroup kube-scheduler "$bin/kube-scheduler" --kubeconfig="$state/etc/kube-scheduler.kubeconfig" \
    --bind-address=$node_ip --leader-elect=false
  in_cgroup kubelet "$bin/kubelet" --config="$state/etc/kubelet.yaml" --kubeconfig="$state/etc/kubelet.kubeconfig" \
    --root-dir="$state/kubelet" --hostname-override=$node_name --node-ip=$node_ip
  in_cgroup kube-proxy "$bin/kube-proxy" --config="$state/etc/kube-proxy.yaml" --hostname-override=$node_name
  "$bin/kubectl" --kubeconfig "$state/kubeconfig" apply --server-side -f "$state/etc/objects.yaml" >"$state/log/objects.log" 2>&1 ||
    return 1
  in_cgroup coredns "$bin/coredns" -conf "$state/etc/Corefile"
  volumes
  soon 60 node_is_ready && soon 30 "$bin/kubectl" --kubeconfig "$state/kubeconfig" get serviceaccount default -n default
}

soon() { # soon SECONDS COMMAND...: like wait_for, but says so by its status
  local limit=$1 started=$SECONDS
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS - started < limit)) || return 1
    sleep 0.2
  done
}

node_is_ready() {
  [[ $("$bin/kubectl" --kubeconfig "$state/kubeconfig" get node $node_name \
    -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}') == True ]] &&
    curl -sf --max-time 2 "http://$node_ip:10054/ready"
}

network_up() {
  local module
  for module in br_netfilter overlay tun; do modprobe -q $module 2>/dev/null || true; done
  # The node's address sits on a bridge without ports, so that it is the same on every machine and reachable from none.
  [[ -e /sys/class/net/liaison0 ]] || ip link add liaison0 type bridge
  ip address replace $node_ip/24 dev liaison0
  ip link set liaison0 up
  # Where the machine has no default route, the host would otherwise not even try to reach a service address.
  ip route replace $service_network dev liaison0
  sysctl_set net.ipv4.ip_forward 1
  sysctl_set net.bridge.bridge-nf-call-iptables 1
  # kube-proxy and the kubelet set these; their former values are kept here so that node_down can put them back.
  sysctl_keep net.ipv4.conf.all.route_localnet
  sysctl_keep vm.overcommit_memory
  sysctl_keep kernel.panic
  sysctl_keep kernel.panic_on_oops
  local rule
  while read -r rule; do
    # shellcheck disable=SC2086 # a rule is words
    netfilter -C $rule 2>/dev/null || netfilter -A $rule
  done < <(netfilter_rules)
}

# The rules that are ours alone, one a line, as arguments of iptables after -A. Policies of a host's own firewall may drop
# what is forwarded, hence the second and third.
netfilter_rules() {
  echo "POSTROUTING -t nat -s $pod_network ! -o liaison-pods -m comment --comment liaison-cluster -j MASQUERADE"
  echo "FORWARD -i liaison-pods -m comment --comment liaison-cluster -j ACCEPT"
  echo "FORWARD -o liaison-pods -m comment --comment liaison-cluster -j ACCEPT"
}
netfilter() { iptables -w 10 "$@"; }

sysctl_file() { echo "/proc/sys/${1//./\/}"; }
sysctl_keep() {
  local file
  file=$(sysctl_file "$1")
  [[ -e $file ]] || return 0
  grep -qs "^$1 " "$state/sysctl" || echo "$1 $(cat "$file")" >>"$state/sysctl"
}
sysctl_set() {
  local file
  file=$(sysctl_file "$1")
  [[ -e $file ]] || return 0
  sysctl_keep "$1"
  echo "$2" >"$file"
}

# The control groups' roots: one of the unified hierarchy, or one a controller where the machine still has version 1.
cgroup_roots() {
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    echo /sys/fs/cgroup
  else
    local root
    for root in /sys/fs/cgroup/*/; do [[ ! -w $root/cgroup.procs ]] || echo "${root%/}"; done
  fi
}

cgroups_up() {
  local root
  while read -r root; do
    if [[ $root == /sys/fs/cgroup ]]; then
      delegate "$root"
      mkdir -p "$root/$cgroup"
      delegate "$root/$cgroup"
    fi
    mkdir -p "$root/$cgroup/pods" "$root/$cgroup/daemons"
    if [[ -e $root/cpuset.cpus && -e $root/$cgroup/cpuset.mems ]]; then # version 1 wants these filled, top down
      local below file
      for below in "$root/$cgroup" "$root/$cgroup/pods" "$root/$cgroup/daemons"; do
        for file in cpuset.cpus cpuset.mems; do cat "$root/$file" >"$below/$file"; done
      done
    fi
  done < <(cgroup_roots)
}

# delegate GROUP: lets groups below this one of the unified hierarchy have every controller that this one has.
delegate() {
  local controller
  for controller in $(<"$1/cgroup.controllers"); do echo "+$controller" >"$1/cgroup.subtree_control" || true; done
}

# in_cgroup NAME COMMAND...: daemon(), in a control group of ours: so are the containers' shims that it starts, and
# node_down finds them all without guessing at names.
in_cgroup() {
  local name=$1 first
  alive "$name" && return 0
  first=$(cgroup_roots | grep -E '/(pids|cgroup)$' | head -n 1)
  (
    echo $BASHPID >"$first/$cgroup/daemons/cgroup.procs"
    daemon "$@"
  )
}

certificates() {
  local names="IP:$node_ip,IP:10.96.0.1,IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default"
  api_server_keys "$names,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  new_certificate etcd /CN=etcd "IP:$node_ip"
  new_certificate etcd-client /CN=kube-apiserver-etcd-client
  new_certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
  new_certificate kubelet "/O=system:nodes/CN=system:node:$node_name" "IP:$node_ip,DNS:$node_name"
  new_certificate kube-controller-manager /CN=system:kube-controller-manager
  new_certificate kube-scheduler /CN=system:kube-scheduler
  new_certificate kube-proxy /CN=system:kube-proxy
  new_certificate coredns /CN=system:coredns
  mkdir -p "$state/etc"
  local name
  for name in kubelet kube-controller-manager kube-scheduler kube-proxy coredns; do
    new_kubeconfig "$state/etc/$name.kubeconfig" https://$node_ip:6443 $name
  done
  new_kubeconfig "$state/kubeconfig.new" https://$node_ip:6443 admin
  mv "$state/kubeconfig.new" "$state/kubeconfig"
}

# configuration: fills in the templates of tests/cluster/etc, whose only variables are the ones listed here.
configuration() {
  local template snapshotter=overlayfs masquerade_all=false
  [[ $(stat -f -c %T "$state") != overlayfs ]] || snapshotter=native
  # Without this kernel module an answer from a pod on the same bridge would not pass the host's address translation.
  [[ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]] || masquerade_all=true
  mkdir -p "$state/etc/net.d" "$state/containerd"
  for template in "$cluster_dir"/etc/*; do
    sed -e "s|@state@|$state|g; s|@node_ip@|$node_ip|g; s|@node_name@|$node_name|g; s|@pod_network@|$pod_network|g" \
      -e "s|@dns_ip@|$dns_ip|g; s|@dns_port@|$dns_port|g; s|@cgroup@|$cgroup|g; s|@socket@|$socket|g" \
      -e "s|@snapshotter@|$snapshotter|g; s|@masquerade_all@|$masquerade_all|g" \
      "$template" >"$state/etc/${template##*/}"
  done
  mv "$state/etc/pods.conflist" "$state/etc/net.d/10-pods.conflist"
  : >"$state/etc/resolv.conf"
}

# import_pause: the one image that pods need besides their own, made of one static program.
import_pause() {
  local image=localhost/liaison/pause:local
  [[ -z $("$bin/ctr" -n k8s.io images list -q name==$image) ]] || return 0
  ticking "making the pause image" "$state/log/pause.log" make_pause "$image"
}
make_pause() {
  local context
  context=$(mktemp -d "$state/run/pause.XXXXXX")
  cp -L "$bin/pause" "$context/pause"
  printf 'FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n' >"$context/Containerfile"
  container_tool build --isolation chroot --tag "$1" --file "$context/Containerfile" "$context" &&
    container_tool push --quiet "$1" "docker-archive:$context/image.tar:$1" &&
    "$bin/ctr" -n k8s.io images import "$context/image.tar"
  local status=$?
  rm -rf "$context"
  return $status
}

# volumes: a few volumes for the default StorageClass; one whose claim is gone is emptied and offered again.
volumes() {
  local number name phase phases
  phases=$("$bin/kubectl" --kubeconfig "$state/kubeconfig" get persistentvolume \
    -o 'jsonpath={range .items[*]}{.metadata.name} {.status.phase}{"\n"}{end}')
  for number in 0 1 2 3 4 5 6 7; do
    name=$node_name-$number
    phase=$(sed -n "s/^$name //p" <<<"$phases")
    [[ -z $phase || $phase == Released || $phase == Failed ]] || continue
    [[ -z $phase ]] || "$bin/kubectl" --kubeconfig "$state/kubeconfig" delete persistentvolume $name >/dev/null
    rm -rf "$state/volumes/$number" && mkdir -p "$state/volumes/$number"
    cat <<YAML
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: $name}
spec:
  capacity: {storage: 20Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: local
  persistentVolumeReclaimPolicy: Retain
  local: {path: $state/volumes/$number}
  nodeAffinity:
    required:
      nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [$node_name]}]}]
YAML
  done >"$state/etc/volumes.yaml"
  [[ ! -s $state/etc/volumes.yaml ]] ||
    "$bin/kubectl" --kubeconfig "$state/kubeconfig" apply --server-side -f "$state/etc/volumes.yaml" >/dev/null
}

# ---- down

node_down() {
  one_at_a_time
  if [[ ! -d $state ]]; then
    say "no cluster of Liaison's runs on this machine"
  else
    node_clear
    say "the cluster is down"
  fi
  rm -f "$state.lock"
}

# node_clear: removes every trace, whether the cluster is alive, half dead, or only files are left.
node_clear() {
  local name bin=$state/bin index
  # Last started, first stopped: nothing restarts what is being removed.
  for ((index = ${#daemons[@]} - 1; index > 0; index--)); do stop "${daemons[index]}"; done
  kill_cgroups pods
  stop containerd
  kill_cgroups daemons
  remove_mounts
  remove_cgroups
  remove_interfaces
  remove_netfilter
  remove_runtime_files
  if [[ -s $state/sysctl ]]; then
    local key value
    while read -r key value; do echo "$value" >"$(sysctl_file "$key")"; done <"$state/sysctl"
  fi
  rm -rf "$state"
}

# kill_cgroups PART: every process in our own control groups, and no other, ends here.
kill_cgroups() {
  local root tries pids
  for tries in {1..50}; do
    pids=$(while read -r root; do
      [[ ! -d $root/$cgroup/$1 ]] || find "$root/$cgroup/$1" -name cgroup.procs -exec cat {} + 2>/dev/null || true
    done < <(cgroup_roots) | sort -u | grep -vx "$$" || true)
    [[ -n $pids ]] || return 0
    # shellcheck disable=SC2086 # a list of numbers
    kill -s KILL $pids 2>/dev/null || true
    sleep 0.1
  done
  say "processes that cannot be ended after $tries tries: $pids"
}

remove_cgroups() {
  local root
  while read -r root; do
    [[ ! -d $root/$cgroup ]] || find "$root/$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done < <(cgroup_roots)
}

# The kubelet's projected volumes are tmpfs mounts, a container's root is an overlay, a pod's network namespace is a bind mount.
remove_mounts() {
  local mount
  while read -r mount; do umount --lazy "$mount" 2>/dev/null || true; done < <(
    awk -v root="$state/" 'index($2, root) == 1 {print $2}' /proc/mounts | tac
  )
}

remove_interfaces() {
  local interface
  # A pod's veth goes with its network namespace; one that stays is a port of our bridge.
  for interface in /sys/class/net/liaison-pods/brif/*; do
    [[ ! -e $interface ]] || ip link delete "${interface##*/}" 2>/dev/null || true
  done
  for interface in liaison-pods liaison0; do
    [[ ! -e /sys/class/net/$interface ]] || ip link delete $interface
  done
}

remove_netfilter() {
  command -v iptables >/dev/null || return 0
  local rule command table
  while read -r rule; do
    # shellcheck disable=SC2086 # a rule is words
    while netfilter -D $rule 2>/dev/null; do :; done
  done < <(netfilter_rules)
  if [[ -x $state/bin/kube-proxy ]]; then "$state/bin/kube-proxy" --cleanup >"$state/log/kube-proxy-cleanup.log" 2>&1 || true; fi
  # What neither took: chains of kube-proxy, of the kubelet, and of the port mapping plugin. One transaction a table.
  for command in iptables ip6tables; do
    for table in nat filter mangle; do
      if $command-save -t $table 2>/dev/null | grep -qE 'KUBE-|CNI-(HOSTPORT|DN)-'; then
        $command-save -t $table | grep -vE 'KUBE-|CNI-(HOSTPORT|DN)-' | $command-restore -w 10 -T $table || true
      fi
    done
  done
}

remove_runtime_files() {
  local file
  # Places whose names containerd, runc and the kubelet fix themselves; only what is ours in them goes.
  if [[ -d $state/run/containerd ]]; then
    while read -r file; do
      rm -f "$(sed 's|^unix://||' "$file")"
      rm -rf "/run/containerd/runc/k8s.io/$(basename "$(dirname "$file")")"
    done < <(find "$state/run/containerd" -name address 2>/dev/null)
  fi
  if [[ -d /var/log/containers ]]; then
    find /var/log/containers -type l -lname "$state/*" -delete
    rmdir --ignore-fail-on-non-empty /var/log/containers
  fi
  # The CNI library keeps each pod's answer here, named after the network.
  grep -lsF "$state/" /var/lib/cni/results/* | xargs -r rm -f || true
  rm -rf /var/lib/kubelet/device-plugins/kubelet.sock /var/lib/kubelet/device-plugins/kubelet_internal_checkpoint
  rmdir --ignore-fail-on-non-empty -p /var/lib/kubelet/device-plugins /var/lib/cni/results /run/containerd/runc/k8s.io \
    /run/containerd/s 2>/dev/null || true
}
