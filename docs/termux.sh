#!/bin/sh
# Serve a GGUF model from an Android phone with Termux' own llama.cpp, for `edge chat --server` on a laptop.
#
#   sh termux.sh MODEL.gguf          for this phone alone, with a page at http://127.0.0.1:8080
#   sh termux.sh MODEL.gguf --lan    for the local network too, behind a key that is generated and printed
#
# Run it in Termux (https://termux.dev). It installs the package llama-cpp if it is missing, and refuses a model that does
# not fit in this phone's memory before anything is loaded. See guides/phone.md.
set -eu

PORT=${PORT:-8080}
CONTEXT=${CONTEXT:-2048}
KEEP_MB=700   # for Android and the KV cache: a phone that runs out of memory closes its apps, this one included
KEY_FILE=${KEY_FILE:-$HOME/.edge-llama-key}

fail() { printf 'termux.sh: %s\n           %s\n' "$1" "$2" >&2; exit "$3"; }

[ $# -ge 1 ] || fail "no model was given" "usage: sh termux.sh MODEL.gguf [--lan]" 2
model=$1
case ${2:-} in
  "") host=127.0.0.1 ;;
  --lan) host=0.0.0.0 ;;
  *) fail "unknown option '$2'" "usage: sh termux.sh MODEL.gguf [--lan]" 2 ;;
esac
[ -r "$model" ] || fail "$model cannot be read" "copy it here first, for example: scp MODEL.gguf PHONE:" 3
[ "$(head -c 4 "$model")" = GGUF ] || fail "$model is not a GGUF file" "convert it on the laptop: edge convert FOLDER --to gguf" 3

need_mb=$(( $(wc -c < "$model") / 1048576 ))
free_mb=$(( $(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' "${MEMINFO:-/proc/meminfo}") / 1024 ))
if [ $(( need_mb + KEEP_MB )) -gt "$free_mb" ]; then
  fail "$model has $need_mb MB, and this phone has $free_mb MB free, of which $KEEP_MB MB are reserved" \
    "on the laptop, 'edge check $model --for snapdragon-765g --memory ${free_mb}MB' names the largest quantization that fits" 7
fi

if ! command -v llama-server > /dev/null; then
  command -v pkg > /dev/null || fail "llama-server is missing, and this is not Termux" "install llama.cpp" 4
  echo "installing Termux' package llama-cpp ..." >&2
  pkg install -y llama-cpp >&2 || fail "pkg could not install llama-cpp" "try: pkg update, then run this again" 4
fi

# Four threads: phones have a few fast cores and several slow ones, and the slow ones hold up the others.
set -- --model "$model" --host "$host" --port "$PORT" --ctx-size "$CONTEXT" --threads "${THREADS:-4}"
if [ "$host" != 127.0.0.1 ]; then
  if [ ! -s "$KEY_FILE" ]; then
    ( umask 077; head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$KEY_FILE" )
  fi
  set -- "$@" --api-key-file "$KEY_FILE"
  echo "on the laptop: EDGE_API_KEY=$(cat "$KEY_FILE") edge chat --server http://PHONE:$PORT" >&2
else
  echo "on this phone: http://127.0.0.1:$PORT" >&2
fi
exec llama-server "$@"
