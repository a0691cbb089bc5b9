#!/usr/bin/env bash
# Builds the packages: build.sh DIRECTORY [ARCH…]. Two builds of one commit are the same, byte by
# byte: no time but the commit's, no path and no host's name gets into them.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "$1")
shift
[ $# -gt 0 ] || set -- amd64

nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
commit=${COMMIT:-$(git rev-parse HEAD)}
seconds=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct "$commit")}
BUILD_TIME=$(date -u -d "@$seconds" +%Y-%m-%dT%H:%M:%SZ)
# A tag is a release; everything else comes before the next one.
version=${VERSION:-$(git describe --tags --exact-match "$commit" 2>/dev/null || true)}
case "$version" in
v[0-9]* | [0-9]*.*) PACKAGE_VERSION=${version#v} ;;
*) PACKAGE_VERSION=0.1.0~git$(date -u -d "@$seconds" +%Y%m%d%H%M).${commit:0:9} ;;
esac

mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
file() { install -D -m "${3:-644}" "$1" "$STAGE/$2"; }
zipped() { install -d "$STAGE/$(dirname "$1")" && gzip -9n >"$STAGE/$1"; }

# The program of this machine writes manual pages and completions.
go build -trimpath -buildvcs=false -o "$work/vswitch" ./cmd/vswitch
for ARCH in "$@"; do
	STAGE=$work/$ARCH
	CGO_ENABLED=0 GOOS=linux GOARCH=$ARCH go build -trimpath -buildvcs=false \
		-ldflags "-s -w -buildid= -X main.version=$PACKAGE_VERSION -X main.commit=$commit" -o "$work/bin" ./cmd/vswitch
	file "$work/bin" usr/bin/vswitch 755
	"$work/vswitch" man | zipped usr/share/man/man8/vswitch.8.gz
	"$work/vswitch" man state | zipped usr/share/man/man5/vswitch.state.5.gz
	"$work/vswitch" completion bash >"$work/c" && file "$work/c" usr/share/bash-completion/completions/vswitch
	"$work/vswitch" completion zsh >"$work/c" && file "$work/c" usr/share/zsh/vendor-completions/_vswitch
	"$work/vswitch" completion fish >"$work/c" && file "$work/c" usr/share/fish/vendor_completions.d/vswitch.fish
	file packaging/systemd/vswitch@.service usr/lib/systemd/system/vswitch@.service
	file packaging/systemd/sysusers.conf usr/lib/sysusers.d/vswitch.conf
	file packaging/systemd/tmpfiles.conf usr/lib/tmpfiles.d/vswitch.conf
	file packaging/networkmanager/90-vswitch.conf usr/lib/NetworkManager/conf.d/90-vswitch.conf
	file packaging/networkd/10-vswitch.network usr/lib/systemd/network/10-vswitch.network
	file packaging/switch.schema.json usr/share/vswitch/switch.schema.json
	file packaging/systemd/netns.conf "usr/share/doc/vswitch/examples/vswitch@.service.d/netns.conf"
	file LICENSE usr/share/doc/vswitch/copyright
	file packaging/NOTICE usr/share/doc/vswitch/NOTICE
	for text in docs/*.md; do
		file "$text" "usr/share/doc/vswitch/$(basename "$text")"
	done
	zipped usr/share/doc/vswitch/changelog.gz <CHANGELOG.md
	find "$STAGE" -exec touch -h -d "@$seconds" {} +
	# Files alone: the directories are other packages'.
	sed "s|@ARCH@|$ARCH|; s|@PACKAGE_VERSION@|$PACKAGE_VERSION|; s|@BUILD_TIME@|$BUILD_TIME|" \
		packaging/nfpm/nfpm.yaml >"$work/nfpm.yaml"
	find "$STAGE" -type f -printf '  - {src: "%p", dst: "/%P", file_info: {owner: root, group: root}}\n' | sort >>"$work/nfpm.yaml"
	for packager in deb rpm; do
		go run "$nfpm" package -f "$work/nfpm.yaml" -p $packager -t "$out/"
	done
done
(cd "$out" && sha256sum ./*.deb ./*.rpm)
