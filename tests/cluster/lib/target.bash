# shellcheck shell=bash
# Which cluster the scripts mean, and where its kubeconfig, kubectl and helm are. Sourced, never run; sources the rest of lib.
#
#   CLUSTER=current   the one that KUBECONFIG names now
#   CLUSTER=kind      kind, made here and named "liaison"; the default where kind is installed
#   CLUSTER=node      a one-node Kubernetes on this machine (lib/node.bash); the default otherwise
#
# The first two pull Liaison's images from the registry that IMAGES names; the last one has them imported.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/cluster/lib/common.bash
source "$here/common.bash"
# shellcheck source=tests/cluster/lib/binaries.bash
source "$here/binaries.bash"
# shellcheck source=tests/cluster/lib/pki.bash
source "$here/pki.bash"

if [[ -n ${CLUSTER:-} ]]; then
  target=$CLUSTER
elif command -v kind >/dev/null; then
  target=kind
else
  target=node
fi

case $target in
  current | kind)
    state=${XDG_STATE_HOME:-$HOME/.local/state}/liaison-cluster
    if [[ $target == current ]]; then kubeconfig=${KUBECONFIG:-$HOME/.kube/config}; else kubeconfig=$state/kubeconfig; fi
    ;;
  node)
    # shellcheck source=tests/cluster/lib/node.bash
    source "$here/node.bash"
    kubeconfig=$state/kubeconfig
    ;;
  *) die "CLUSTER must be current, kind or node, not $target" ;;
esac

# A node of our own needs what only root on Linux may do.
check_machine() {
  [[ $target != node || $(uname -s) == Linux ]] ||
    die "a cluster of Liaison's own runs on Linux only: install kind, or name a cluster with KUBECONFIG and CLUSTER=current"
  [[ $target != node || $(id -u) == 0 ]] ||
    die "starting a Kubernetes node needs root: run this as root, install kind, or name a cluster with KUBECONFIG and CLUSTER=current"
  [[ $target == node || -n ${IMAGES:-} ]] ||
    die "CLUSTER=$target takes Liaison's images from a registry: set IMAGES=<registry> to one that you can push to and the cluster can pull from"
}

# tool_path: the directories of kubectl and helm that are not on PATH already, for clusters that are not ours.
tool_path() {
  local path='' program=''
  command -v kubectl >/dev/null || { ensure_program kube && path+=$program:; }
  command -v helm >/dev/null || { ensure_program helm && path+=$program:; }
  printf '%s' "$path"
}
