#!/bin/bash
# Gets a real engine for the tests: llama-server of Debian testing, beside the system.
#
#   tests/engines/llama_server.sh [DIRECTORY]
#
# Prints the path of a start script. Where DIRECTORY holds one already, nothing else is done; remove
# DIRECTORY to get a newer engine. Nothing outside of it is touched, and no rights are needed: apt
# works with lists, cache and a dpkg status of its own, all in there, and with the archive and the
# proxy that this machine is configured for. It checks the archive's signature.
#
# Exit codes: 0 there; 75 the archive cannot be reached; anything else is a failure.
# Environment: CORTEXD_DEBIAN_ARCHIVE, the URI of a Debian archive, in place of the machine's own.
set -euo pipefail
export LC_ALL=C

readonly UNREACHABLE=75
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
readonly PACKAGES=(llama.cpp-tools patchelf)

directory=$(realpath -m "${1:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/cortexd-tests/llama}")
start=$directory/llama-server

say() { echo "llama_server.sh: $*" >&2; }

# The Debian archive that this machine uses, whether or not its lists were ever fetched.
machine_archive() {
  command -v apt-get >/dev/null || return 0
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 -E '/debian/?$' || true
}

# apt, with everything that it reads or writes in the folder $scratch/apt.
own_apt() {
  local apt=$scratch/apt
  apt-get -q -o Dir::State="$apt" -o Dir::State::lists="$apt/lists" \
    -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" -o Dir::Log="$apt" \
    -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
    -o APT::Sandbox::User=root -o APT::Update::Error-Mode=any -o APT::Install-Recommends=false \
    -o Acquire::Languages=none -o Acquire::Retries=3 "$@" >"$apt/log" 2>&1 && return
  cat "$apt/log" >&2
  if grep -qE 'Hash Sum mismatch|GPG error' "$apt/log"; then
    say 'what the archive sent is not what it signed'
    exit 1
  elif grep -qE '^E: (Failed to fetch|Unable to fetch)' "$apt/log"; then
    say "the archive cannot be reached: $archive"
    exit "$UNREACHABLE"
  fi
  say "apt-get ${*: -1} failed"
  exit 1
}

fetch() {
  mkdir -p "$scratch"/apt/{lists,cache/archives}/partial
  : >"$scratch/apt/status"
  echo "deb [signed-by=$KEYRING] $archive testing main" >"$scratch/apt/sources.list"
  own_apt update
  # With nothing installed, apt takes everything that is needed, down to libc.
  own_apt install --yes --download-only "${PACKAGES[@]}"
}

# This libc is older than the engine's, so that the engine brings its own, and its loader with it.
# The loader's path is written into the program, rather than the program given to the loader,
# because llama-server starts itself again from /proc/self/exe for each model it loads.
unpack() {
  local package libraries loader loader_name
  for package in "$scratch"/apt/cache/archives/*.deb; do
    dpkg-deb --extract "$package" "$scratch/tree"
  done
  rm -rf "$scratch/apt" "$scratch"/tree/usr/share
  libraries=$(dirname "$(find "$scratch/tree/usr/lib" -name 'libllama.so.*' -print -quit)")
  loader=$(find "$libraries" -name 'ld-linux-*.so.*' -print -quit)
  loader_name=usr/lib/$(basename "$libraries")/$(basename "$loader")
  "$loader" --library-path "$libraries" "$scratch/tree/usr/bin/patchelf" \
    --set-interpreter "$directory/tree/$loader_name" "$scratch/tree/usr/bin/llama-server"
  write_start_script "$(basename "$libraries")" >"$scratch/llama-server"
  chmod +x "$scratch/llama-server"
  "$loader" --library-path "$libraries:$libraries/llama" \
    "$scratch/tree/usr/bin/llama-server" --version >&2
}

# The plainest of the processor back ends: it is there on every processor of its kind.
write_start_script() {
  local backend
  case $1 in
    x86_64-linux-gnu) backend=x64 ;;
    aarch64-linux-gnu) backend=armv8.0_1 ;;
    *) say "no back end is known for $1" && exit 1 ;;
  esac
  cat <<EOF
#!/bin/sh
here=\$(dirname "\$(readlink -f "\$0")")
libraries=\$here/tree/usr/lib/$1
export GGML_BACKEND_PATH="\${GGML_BACKEND_PATH:-\$libraries/ggml/backends0/libggml-cpu-$backend.so}"
export LD_LIBRARY_PATH="\$libraries:\$libraries/llama"
exec "\$here/tree/usr/bin/llama-server" "\$@"
EOF
}

mkdir -p "$(dirname "$directory")"
exec 9>"$directory.lock"
flock 9 # whoever comes while it is being fetched waits, and finds it there
if [[ ! -x $start ]]; then
  archive=${CORTEXD_DEBIAN_ARCHIVE:-$(machine_archive)}
  if [[ -z $archive ]]; then
    say 'apt knows no Debian archive on this machine; CORTEXD_DEBIAN_ARCHIVE can name one'
    exit "$UNREACHABLE"
  fi
  scratch=$(mktemp -d "$directory.XXXXXX")
  trap 'rm -rf "$scratch"' EXIT
  say "fetching ${PACKAGES[*]} from $archive"
  fetch
  unpack
  rm -rf "$directory"
  mv -T "$scratch" "$directory"
fi
echo "$start"
