#!/usr/bin/env bash
# Fetches Mesa's software Vulkan driver (lavapipe) from Debian's backports into node_modules/.cache, without root and
# without touching the system: Debian 12's own is too old for WebGPU. Node and the browser tests find it there.
#   e2e/lavapipe/get.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${1:-node_modules/.cache/mixdq-web/lavapipe}
[ -e "$target/lvp_icd.json" ] && exit 0

[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || { echo "get.sh: needs Debian on amd64" >&2; exit 1; }
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | head -n 1 | tr -d ' ' || true)
[ -n "$mirror" ] || { echo "get.sh: no Debian mirror in /etc/apt" >&2; exit 1; }

mkdir -p "$(dirname "$target")"
work=$(mktemp -d "$(realpath "$(dirname "$target")")/lavapipe.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/state/lists/partial "$work"/cache/archives/partial "$work"/debs "$work"/done/root
key='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
printf 'deb %s %s %s main\n' "$key" "$mirror" "$release" "$key" "$mirror" "$release-backports" > "$work/sources.list"

apt=(apt-get -o Dir::State="$work/state" -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$work/cache"
  -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User=
  -o Debug::NoLocking=1 -t "$release-backports" -qq)
"${apt[@]}" update
# What the system already has is not listed as an install, but the driver itself must come in any case.
packages=$("${apt[@]}" -s --no-install-recommends install mesa-vulkan-drivers libvulkan1 | awk '/^Inst/ { print $2 }')
packages=$(printf '%s\n' $packages mesa-vulkan-drivers libvulkan1 | sort -u)
(cd "$work/debs" && "${apt[@]}" download $packages)
for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/done/root"; done

final=$(realpath -m "$target")
library=$final/root/usr/lib/x86_64-linux-gnu/libvulkan_lvp.so
[ -e "$work/done/root/usr/lib/x86_64-linux-gnu/libvulkan_lvp.so" ] || { echo "get.sh: no libvulkan_lvp.so in $packages" >&2; exit 1; }
printf '{"file_format_version":"1.0.0","ICD":{"library_path":"%s","api_version":"1.3.0"}}\n' "$library" > "$work/done/lvp_icd.json"
mv -T "$work/done" "$final" 2>/dev/null || [ -e "$final/lvp_icd.json" ]
