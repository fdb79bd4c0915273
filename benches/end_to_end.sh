#!/usr/bin/env bash
# `protected_resource` and the same router without the layer, under the same load: requests a second,
# with one token repeated and with 10,000 tokens in turn. Needs `wrk`.
#
#   bash benches/end_to_end.sh            # about two minutes
#   SECONDS_EACH=2 ROUNDS=3 bash benches/end_to_end.sh
#
# The server has one core, the load another. The two are measured in turn, round by round, and
# the medians of their ratios are shown.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v wrk >/dev/null || { echo "wrk is not installed; in Debian it is the package of that name" >&2; exit 2; }

seconds=${SECONDS_EACH:-4}
rounds=${ROUNDS:-7}
scratch=$(mktemp -d)
started=()
trap 'kill "${started[@]}" 2>/dev/null && wait || true; rm -rf "$scratch"' EXIT

# Built alike: the profile decides about half of the outcome.
built() {
  cargo build --quiet --profile bench --message-format json "$@" |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}
bare=$(built --bench bare)
protected=$(built --example protected_resource)

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

export TOKIO_WORKER_THREADS=1 RUST_LOG=warn
TOKENS=$scratch/distinct on_core 0 "$bare" >"$scratch/bare" &
started+=($!)
issuer=$(first_line "$scratch/bare")
PORT=0 ISSUER=$(member issuer <<<"$issuer") AUDIENCE=$(member audience <<<"$issuer") \
  JWKS_URI=$(member jwks_uri <<<"$issuer") on_core 0 "$protected" >"$scratch/protected" &
started+=($!)
bare_url=$(member listening <<<"$issuer")
protected_url=$(first_line "$scratch/protected" | member listening)
head -n 1 "$scratch/distinct" >"$scratch/repeated"

# Requests made beforehand, so that the load costs little.
cat >"$scratch/load.lua" <<'LUA'
local requests, last = {}, 0
function init()
  for token in io.lines(os.getenv("TOKENS")) do
    requests[#requests + 1] =
      wrk.format("GET", "/protected_resource", { Authorization = "Bearer " .. token })
  end
end
function request()
  last = last % #requests + 1
  return requests[last]
end
LUA

# Seconds of processor time that a server has had.
busy() { awk '{ print ($14 + $15) / 100 }' "/proc/$1/stat"; }

# Requests a second; fails if one was not served. Then how busy the server was: were it not at its
# limit, this would be the figure of the load.
load() {
  local out before
  before=$(busy "$3")
  out=$(TOKENS=$scratch/$1 on_core 1 wrk --threads 1 --connections 32 --duration "${seconds}s" \
    --script "$scratch/load.lua" "$2/protected_resource")
  if grep -q "Non-2xx\|Socket errors" <<<"$out"; then echo "$out" >&2; exit 1; fi
  echo "$(sed -n 's/^Requests\/sec: *//p' <<<"$out") $(awk "BEGIN { print ($(busy "$3") - $before) / $seconds }")"
}
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

for kind in repeated distinct; do
  load "$kind" "$protected_url" "${started[1]}" >/dev/null # Each token often enough to be remembered.
  for _ in $(seq "$rounds"); do
    # Assigned first: a substitution that fails within a redirection goes unnoticed.
    without_layer=$(load "$kind" "$bare_url" "${started[0]}")
    with_layer=$(load "$kind" "$protected_url" "${started[1]}")
    read -r without busy_without <<<"$without_layer"
    read -r with busy_with <<<"$with_layer"
    echo "$without $with $(awk "BEGIN { print $with / $without }") $busy_without $busy_with" >>"$scratch/$kind.rates"
  done
  column() { cut -d' ' -f"$1" "$scratch/$kind.rates" | median; }
  printf '%s: without the layer %.0f requests a second on %.2f of a core, with it %.0f on %.2f: %.3f\n' \
    "$kind" "$(column 1)" "$(column 4)" "$(column 2)" "$(column 5)" "$(column 3)"
done
