#!/usr/bin/env bash
# `protected_resource` under load, behind the layer and where it has none: requests for each second of
# processor time, with one token repeated and with 10,000 tokens in turn. Needs `wrk`.
#
#   bash benches/end_to_end.sh            # about eight minutes
#   SECONDS_EACH=2 ROUNDS=2 STARTS=1 bash benches/end_to_end.sh
#
# One program runs twice; one instance is asked for `/protected_resource` and the other for `/healthz`, whose
# handler is as short and has no layer before it. Both are loaded at the same time, and share one core, the
# loads another: what else the machine does falls on both alike. One after the other, the same program serves
# a fifth more or less from one second to the next. That they share the processor's caches, too, is bad for
# both. In every other round the instances change places. They are started anew several times: where in memory a
# program comes to lie makes a hundredth more or less. Medians are shown, and first those of two instances without
# the layer, which ought to be alike.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v wrk >/dev/null || { echo "wrk is not installed; in Debian it is the package of that name" >&2; exit 2; }

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

# On a core of its own, in place of the shell that calls it.
on_core() {
  local core=$1
  shift
  if [ "$(nproc)" -gt 1 ] && command -v taskset >/dev/null; then exec taskset -c "$core" "$@"; else exec "$@"; fi
}

# The line of JSON that a server prints when it listens.
first_line() {
  local _
  for _ in $(seq 600); do
    [ -s "$1" ] && { head -n 1 "$1"; return; }
    sleep 0.1
  done
  echo "no server came up" >&2
  exit 1
}
member() { sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/"; }

export TOKIO_WORKER_THREADS=1 RUST_LOG=warn LC_ALL=C
TOKENS=$scratch/distinct "$issuer" >"$scratch/issuer" &
source=$!
settings=$(first_line "$scratch/issuer")
head -n 1 "$scratch/distinct" >"$scratch/repeated"

# Requests made beforehand, so that the load costs little.
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

# Two instances, in `servers` and `urls`.
start() {
  local place
  servers=() urls=()
  for place in 0 1; do
    : >"$scratch/$place"
    PORT=0 ISSUER=$(member issuer <<<"$settings") AUDIENCE=$(member audience <<<"$settings") \
      JWKS_URI=$(member jwks_uri <<<"$settings") on_core 0 "$resource" >"$scratch/$place" &
    servers+=($!)
    urls+=("$(first_line "$scratch/$place" | member listening)")
  done
}
stop() {
  kill "${servers[@]}"
  wait "${servers[@]}" || true
  servers=()
}

# Seconds of processor time that a server has had.
busy() { awk -v ticks="$(getconf CLK_TCK)" '{ print ($14 + $15) / ticks }' "/proc/$1/stat"; }

# How many requests were served: of which tokens, and where. Fails if one was not.
load() {
  local out
  out=$(TOKENS=$scratch/$1 on_core 1 wrk --threads 1 --connections 32 --duration "${seconds}s" \
    --script "$scratch/load.lua" "$2")
  if grep -q "Non-2xx\|Socket errors" <<<"$out"; then echo "$out" >&2; exit 1; fi
  sed -n 's/^ *\([0-9]*\) requests in .*/\1/p' <<<"$out"
}

# Requests for each second of processor time, without the layer and with it, and their ratio: of which
# tokens, which instance is asked for the second path, and for which.
round() {
  local kind=$1 with=$2 without=$((1 - $2)) path=$3 before after
  before="$(busy "${servers[without]}") $(busy "${servers[with]}")"
  load "$kind" "${urls[without]}/healthz" >"$scratch/without" &
  local first=$!
  load "$kind" "${urls[with]}$path" >"$scratch/with"
  wait "$first"
  after="$(busy "${servers[without]}") $(busy "${servers[with]}")"
  echo "$before $after $(<"$scratch/without") $(<"$scratch/with")" |
    awk '{ without = $5 / ($3 - $1); with = $6 / ($4 - $2); print without, with, with / without }'
}
median() { sort -n | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'; }

# With which tokens, for which path, and where to note it.
compare() {
  local kind=$1 path=$2 rates=$3 place number
  # Each token often enough to be remembered, by both.
  for place in 0 1 0 1; do round "$kind" "$place" "$path" >/dev/null; done
  for number in $(seq "$rounds"); do
    round "$kind" $((number % 2)) "$path"
  done >>"$rates"
}
for _ in $(seq "$starts"); do
  start
  compare repeated /healthz "$scratch/alike"
  compare repeated /protected_resource "$scratch/one"
  compare distinct /protected_resource "$scratch/many"
  stop
done

tell() {
  column() { cut -d' ' -f"$1" "$2" | median; }
  printf '%s: %.0f requests a second of processor time without the layer, %.0f with it: %.3f\n' \
    "$1" "$(column 1 "$2")" "$(column 2 "$2")" "$(column 3 "$2")"
}
tell "neither has it" "$scratch/alike"
tell "one token" "$scratch/one"
tell "10,000 tokens" "$scratch/many"
