# shellcheck shell=bash
# The programs of the test cluster, built from Go modules and kept outside the checkout. Sourced, never run.
#
# Touches: ${LIAISON_CACHE:-$HOME/.cache/liaison}/<program>-<hash>, where the hash is of what the program is built from, the
# image storage beside it, and Go's own caches. Deleting the directory costs the time of a build and nothing else.

cache=${LIAISON_CACHE:-$HOME/.cache/liaison}
readonly cache

readonly kubernetes_version=v1.35.4 helm_version=v4.3.1

# ensure_program NAME: builds the program unless it is cached, and sets program=<directory that holds it>.
ensure_program() {
  local name=$1 hash
  hash=$({
    echo "$name $helm_version $kubernetes_version $(uname -m)"
    [[ ! -d $cluster_dir/$name ]] || (cd "$cluster_dir/$name" && sha256sum -- *)
  } | sha256sum)
  program=$cache/$name-${hash:0:16}
  [[ ! -x $program/$name ]] || return 0
  command -v go >/dev/null || die "Go 1.26 or later is needed to build $name: install it from go.dev and put it on PATH"
  mkdir -p "$program"
  (
    flock 8 # two checkouts may want the same program
    [[ -x $program/$name ]] || ticking "building $name" "$program/build.log" "build_$name" "$program"
  ) 8>"$program/lock"
}

go_build() { # go_build MODULE OUTPUT [LDFLAGS]
  (cd "$cluster_dir/$1" && CGO_ENABLED=0 GOFLAGS=-mod=readonly nice -n 5 \
    go build -trimpath -buildvcs=false -ldflags "-s -w ${3:-}" -o "$2.new" . && mv "$2.new" "$2")
}

# Without these kubectl and kubelet call themselves v0.0.0.
build_kube() {
  local version=k8s.io/component-base/version
  go_build kube "$1/kube" "-X $version.gitVersion=$kubernetes_version -X $version.gitMajor=1 \
-X $version.gitMinor=$(cut -d. -f2 <<<$kubernetes_version) -X $version.gitTreeState=clean" || return 1
  local name
  for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl etcd; do
    ln -sfn kube "$1/$name"
  done
}
build_coredns() { go_build coredns "$1/coredns"; }
build_certmanager() { go_build certmanager "$1/certmanager" && certmanager_definitions "$1"; }
# The module has them beside its code.
certmanager_definitions() {
  local module
  module=$(cd "$cluster_dir/certmanager" && go list -m -f '{{.Dir}}' github.com/cert-manager/cert-manager) || return 1
  install -m 644 "$module"/deploy/crds/cert-manager.io_{issuers,certificaterequests}.yaml "$1"
}
build_pause() { go_build pause "$1/pause"; }
build_helm() {
  GOBIN=$1/bin CGO_ENABLED=0 nice -n 5 go install -trimpath -ldflags "-s -w" "helm.sh/helm/v4/cmd/helm@$helm_version" &&
    mv "$1/bin/helm" "$1/helm"
}

# container_tool ARGUMENT...: buildah with image storage of our own, so that the user's stays as it is. Its overlay driver does
# not work on top of an overlay file system.
container_tool() {
  local driver=overlay
  mkdir -p "$cache"
  [[ $(stat -f -c %T "$cache") != overlayfs ]] || driver=vfs
  buildah --root "$cache/images-$driver" --runroot /run/liaison-images --storage-driver "$driver" "$@"
}
