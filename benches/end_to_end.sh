#!/usr/bin/env bash
# Measures `protected_resource` under load, with the layer and without it: requests per second of
# processor time, with one repeated token and with 10,000 tokens in turn. Then the metadata document of a
# resource, and an axum handler that returns the same bytes. Needs `wrk`.
#
#   bash benches/end_to_end.sh            # about eleven minutes
#   SECONDS_EACH=2 ROUNDS=2 STARTS=1 bash benches/end_to_end.sh
#
# Two instances of the program run. One serves `/protected_resource`; the other serves `/healthz`, whose
# handler is as short and has no layer. Both are loaded at the same time and share one core, and both load
# generators share another, so that other load on the machine affects both alike. Measured one after the
# other, the same program varies by a fifth from one second to the next. Sharing the processor's caches slows
# both down. The instances swap roles every other round. They are restarted several times, because the memory
# layout of a process changes the result by one percent. The script prints medians, starting with a comparison
# of two instances without the layer, which should be equal.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v wrk >/dev/null || { echo "wrk is not installed: install it, on Debian with apt-get install wrk" >&2; exit 2; }

seconds=${SECONDS_EACH:-4}
rounds=${ROUNDS:-4}
starts=${STARTS:-5}
scratch=$(mktemp -d)
servers=()
trap 'kill "${source:-}" "${servers[@]}" 2>/dev/null && wait || true; rm -rf "$scratch"' EXIT

built() {
  cargo build --quiet --profile bench --message-format json "$@" |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}
issuer=$(built --bench issuer)
resource=$(built --example protected_resource)
document=$(built --bench document)

# Replaces the calling shell with a command on the given core.
on_core() {
  local core=$1
  shift
  if [ "$(nproc)" -gt 1 ] && command -v taskset >/dev/null; then exec taskset -c "$core" "$@"; else exec "$@"; fi
}

# Prints the line of JSON that a server writes when it is listening.
first_line() {
  local _
  for _ in $(seq 600); do
    [ -s "$1" ] && { head -n 1 "$1"; return; }
    sleep 0.1
  done
  echo "the server did not start" >&2
  exit 1
}
member() { sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/"; }

export TOKIO_WORKER_THREADS=1 RUST_LOG=warn LC_ALL=C
TOKENS=$scratch/distinct "$issuer" >"$scratch/issuer" &
source=$!
settings=$(first_line "$scratch/issuer")
head -n 1 "$scratch/distinct" >"$scratch/repeated"

# Builds all requests in advance, so that the load generator is cheap.
cat >"$scratch/load.lua" <<'LUA'
local requests, last = {}, 0
function init()
  for token in io.lines(os.getenv("TOKENS")) do
    requests[#requests + 1] = wrk.format("GET", wrk.path, { Authorization = "Bearer " .. token })
  end
end
function request()
  last = last % #requests + 1
  return requests[last]
end
LUA

# Starts two instances of a program; sets `servers` and `urls`.
start() {
  local index program=$1
  servers=() urls=()
  for index in 0 1; do
    : >"$scratch/$index"
    PORT=0 ISSUER=$(member issuer <<<"$settings") AUDIENCE=$(member audience <<<"$settings") \
      JWKS_URI=$(member jwks_uri <<<"$settings") TOKENS=none on_core 0 "$program" >"$scratch/$index" &
    servers+=($!)
    urls+=("$(first_line "$scratch/$index" | member listening)")
  done
}
stop() {
  kill "${servers[@]}"
  wait "${servers[@]}" || true
  servers=()
}

# Prints the processor time of a process in seconds.
cpu_seconds() { awk -v ticks="$(getconf CLK_TCK)" '{ print ($14 + $15) / ticks }' "/proc/$1/stat"; }

# Prints the number of requests served: load TOKENS URL. Fails if a request failed.
load() {
  local out
  out=$(TOKENS=$scratch/$1 on_core 1 wrk --threads 1 --connections 32 --duration "${seconds}s" \
    --script "$scratch/load.lua" "$2")
  if grep -q "Non-2xx\|Socket errors" <<<"$out"; then echo "$out" >&2; exit 1; fi
  sed -n 's/^ *\([0-9]*\) requests in .*/\1/p' <<<"$out"
}

# Prints requests per second of processor time at FLOOR, at PATH, and their ratio:
# round TOKENS INSTANCE_WITH_PATH PATH FLOOR.
round() {
  local kind=$1 with=$2 without=$((1 - $2)) path=$3 floor=$4 before after
  before="$(cpu_seconds "${servers[without]}") $(cpu_seconds "${servers[with]}")"
  load "$kind" "${urls[without]}$floor" >"$scratch/without" &
  local first=$!
  load "$kind" "${urls[with]}$path" >"$scratch/with"
  wait "$first"
  after="$(cpu_seconds "${servers[without]}") $(cpu_seconds "${servers[with]}")"
  echo "$before $after $(<"$scratch/without") $(<"$scratch/with")" |
    awk '{ without = $5 / ($3 - $1); with = $6 / ($4 - $2); print without, with, with / without }'
}
median() { sort -n | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'; }

# Appends the rounds of one comparison to a file: compare TOKENS PATH FILE [FLOOR].
compare() {
  local kind=$1 path=$2 rates=$3 floor=${4:-/healthz} index number
  # Warm-up: each instance caches each token.
  for index in 0 1 0 1; do round "$kind" "$index" "$path" "$floor" >/dev/null; done
  for number in $(seq "$rounds"); do
    round "$kind" $((number % 2)) "$path" "$floor"
  done >>"$rates"
}
for _ in $(seq "$starts"); do
  start "$resource"
  compare repeated /healthz "$scratch/alike"
  compare repeated /protected_resource "$scratch/one"
  compare distinct /protected_resource "$scratch/many"
  stop
  start "$document"
  compare repeated /.well-known/oauth-protected-resource "$scratch/document" /plain
  stop
done

print_result() {
  column() { cut -d' ' -f"$1" "$2" | median; }
  printf '%s: %.0f requests per second of processor time %s, %.0f %s: %.3f\n' \
    "$1" "$(column 1 "$2")" "${3:-without the layer}" "$(column 2 "$2")" "${4:-with it}" "$(column 3 "$2")"
}
print_result "both without the layer" "$scratch/alike"
print_result "one token" "$scratch/one"
print_result "10,000 tokens" "$scratch/many"
print_result "document" "$scratch/document" "by a handler" "by its service"
