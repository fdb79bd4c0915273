#!/usr/bin/env bash
# Installs Keycloak from Maven Central into INTEROP_DIR, else target/interop. Does nothing if it is
# already installed. Needs Java 17, Maven and unzip.
set -euo pipefail

version=26.7.3
# Some of them are off by default.
features=client-auth-federated,jwt-authorization-grant,token-exchange-standard,resource-indicators
# With https it asks for a certificate of the client, which RFC 8705 needs.
client_auth=request
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
into=${INTEROP_DIR:-$here/../../target/interop}
home=$into/keycloak

# The stamp is written last: an interrupted installation is repeated.
if [ "$(cat "$home/installed" 2>/dev/null)" = "$version $features $client_auth" ]; then
  exit 0
fi
rm -rf "$home"
mkdir -p "$into"
unpacked=$(mktemp -d "$into/unpacked.XXXXXX")
trap 'rm -rf "$unpacked"' EXIT
mvn --batch-mode --quiet org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
  -Dartifact=org.keycloak:keycloak-quarkus-dist:$version:zip -DoutputDirectory="$unpacked"
unzip -q "$unpacked/keycloak-quarkus-dist-$version.zip" -d "$unpacked"
mv "$unpacked/keycloak-$version" "$home"
# Without a cluster, whose port would not be on loopback.
JAVA_OPTS_KC_HEAP=-Xmx700m "$home/bin/kc.sh" build --db=dev-file --cache=local \
  --https-client-auth=$client_auth --features=$features
echo "$version $features $client_auth" >"$home/installed"
