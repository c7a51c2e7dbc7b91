# shellcheck shell=bash
# What every script of tests/cluster shares: speaking to the user, progress on what takes long, Debian packages, and
# daemons that are started, recognised and stopped by a recorded process id. Sourced, never run.
#
# Touches: the Debian packages it is asked for, and files under the state directory of the script that sources it.

# shellcheck disable=SC2154 # state: the sourcing script's state directory
cluster_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly cluster_dir

say() { printf '%s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# ticking TEXT LOG COMMAND...: runs the command with its output in LOG and shows that time passes: a line that counts
# seconds on a terminal, a new line every 20 seconds elsewhere. On failure the end of LOG is shown.
ticking() {
  local text=$1 log=$2 started=$SECONDS waited pid
  shift 2
  mkdir -p "$(dirname "$log")"
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.5
    waited=$((SECONDS - started))
    if [[ -t 2 ]]; then
      printf '\r%s ... %d s ' "$text" "$waited" >&2
    elif ((waited > 0 && waited % 20 == 0 && waited != ${last_tick:-0})); then
      last_tick=$waited
      say "$text ... $waited s"
    fi
  done
  last_tick=0
  if wait "$pid"; then
    [[ -t 2 ]] && printf '\r' >&2
    say "$text: $((SECONDS - started)) s"
  else
    [[ -t 2 ]] && printf '\n' >&2
    say "$text: failed; the end of $log:"
    tail -n 30 "$log" >&2
    return 1
  fi
}

# need_packages PACKAGE...: installs the Debian packages that are lacking, and says which.
need_packages() {
  local package missing=()
  for package in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) == ii* ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null || die "these programs are lacking, install them your system's way: ${missing[*]}"
  [[ $(id -u) == 0 ]] || die "run as root once, or run: apt-get install ${missing[*]}"
  say "installing Debian packages: ${missing[*]}"
  ticking "apt-get install" "$state/log/apt.log" install_packages "${missing[@]}"
}

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  # Services that the packages bring (containerd, postgresql) must not start by themselves: ours run from our own state.
  local policy=/usr/sbin/policy-rc.d made=no status=0
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && made=yes
  fi
  apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=600 "$@" ||
    { apt-get update && apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=600 "$@"; } || status=$?
  [[ $made == no ]] || rm -f "$policy"
  return "$status"
}

# daemon NAME COMMAND...: starts a process that outlives this shell and its terminal, its output in $state/log/NAME.log,
# its id in $state/pid/NAME. Nothing happens when it is alive already. Its command line must name $state: that is how
# alive() knows later that a process id still belongs to it.
daemon() {
  local name=$1
  shift
  alive "$name" && return 0
  mkdir -p "$state/pid" "$state/log"
  # shellcheck disable=SC2016 # $$ and $1 are the inner shell's
  setsid nohup bash -c 'echo $$ >"$1"; shift; exec "$@"' -- "$state/pid/$name" "$@" \
    </dev/null >>"$state/log/$name.log" 2>&1 9>&- &
  disown
  local tries
  for tries in {1..50}; do
    [[ -s $state/pid/$name ]] && alive "$name" && return 0
    sleep 0.1
  done
  die "$name did not start after $tries tries; see $state/log/$name.log"
}

# alive NAME: whether the recorded process runs and is ours.
alive() {
  local pid
  pid=$(cat "$state/pid/$1" 2>/dev/null) && [[ -r /proc/$pid/cmdline ]] &&
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$state"
}

# stop NAME [SIGNAL]: asks the recorded process to end, and makes it after ten seconds.
stop() {
  local name=$1 signal=${2:-TERM} pid tries
  if alive "$name"; then
    pid=$(cat "$state/pid/$name")
    kill -s "$signal" "$pid" 2>/dev/null || true
    for tries in {1..100}; do
      alive "$name" || break
      ((tries < 100)) || kill -s KILL "$pid" 2>/dev/null || true
      sleep 0.1
    done
  fi
  rm -f "$state/pid/$name"
}

# wait_for TEXT SECONDS COMMAND...: polls until the command succeeds.
wait_for() {
  local text=$1 limit=$2 started=$SECONDS
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS - started < limit)) || die "$text: not after $limit s; logs are in $state/log"
    sleep 0.2
  done
}

# one_at_a_time: holds a lock on the state directory until this script ends. Daemons do not inherit it (9>&- above).
one_at_a_time() {
  mkdir -p "$state"
  exec 9>"$state.lock"
  flock -n 9 || {
    say "waiting for another run on $state"
    flock 9
  }
}
