# shellcheck shell=bash
# Certificates and kubeconfigs of a test API server. Sourced, never run.
#
# Touches: $state/pki and the kubeconfig files it is asked to write.

readonly pki_days=3650

# new_authority NAME: makes $state/pki/NAME.{crt,key}, unless they are there.
new_authority() {
  local base=$state/pki/$1
  [[ ! -s $base.crt ]] || return 0
  mkdir -p "$state/pki" && chmod 700 "$state/pki"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days $pki_days -subj "/CN=$1" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
    -keyout "$base.key" -out "$base.crt" 2>/dev/null
}

# new_certificate NAME SUBJECT [SUBJECT-ALTERNATIVE-NAMES]: a leaf of the authority `ca`, for server and client use.
new_certificate() {
  local base=$state/pki/$1 subject=$2 names=${3:-}
  [[ ! -s $base.crt ]] || return 0
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "$subject" -keyout "$base.key" 2>/dev/null |
    openssl x509 -req -CA "$state/pki/ca.crt" -CAkey "$state/pki/ca.key" -days $pki_days -out "$base.crt" -extfile <(
      echo 'basicConstraints=critical,CA:FALSE'
      echo 'keyUsage=critical,digitalSignature'
      echo 'extendedKeyUsage=serverAuth,clientAuth'
      [[ -z $names ]] || echo "subjectAltName=$names"
    ) 2>/dev/null
}

# new_kubeconfig FILE SERVER CERTIFICATE-NAME: everything is inside the file, so that it can be copied.
new_kubeconfig() {
  local file=$1 server=$2 base=$state/pki/$3
  (
    umask 077
    cat >"$file" <<YAML
apiVersion: v1
kind: Config
current-context: liaison
contexts: [{name: liaison, context: {cluster: liaison, user: $3}}]
clusters:
  - name: liaison
    cluster: {server: "$server", certificate-authority-data: $(base64 -w0 <"$state/pki/ca.crt")}
users:
  - name: $3
    user: {client-certificate-data: $(base64 -w0 <"$base.crt"), client-key-data: $(base64 -w0 <"$base.key")}
YAML
  )
}

# api_server_keys NAMES: the authorities and the API server's own certificate and service account key.
api_server_keys() {
  new_authority ca
  new_authority front-proxy-ca
  new_certificate apiserver /CN=kube-apiserver "$1"
  new_certificate admin /O=system:masters/CN=admin
  [[ -s $state/pki/sa.key ]] || openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$state/pki/sa.key" 2>/dev/null
  [[ -s $state/pki/sa.pub ]] || openssl pkey -in "$state/pki/sa.key" -pubout -out "$state/pki/sa.pub"
}

# api_server_flags ADDRESS PORT: what the node's API server and the one without a node have in common.
api_server_flags() {
  printf '%s\n' \
    --bind-address="$1" --secure-port="$2" --advertise-address="$1" \
    --tls-cert-file="$state/pki/apiserver.crt" --tls-private-key-file="$state/pki/apiserver.key" \
    --client-ca-file="$state/pki/ca.crt" --authorization-mode=Node,RBAC --anonymous-auth=true \
    --enable-admission-plugins=NodeRestriction \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$state/pki/sa.pub" --service-account-signing-key-file="$state/pki/sa.key" \
    --requestheader-client-ca-file="$state/pki/front-proxy-ca.crt" --requestheader-allowed-names=front-proxy-client \
    --requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group \
    --requestheader-username-headers=X-Remote-User \
    --service-cluster-ip-range=10.96.0.0/16 --profiling=false --logging-format=json
}
