#!/usr/bin/env bash
# Builds the packages: build.sh DIRECTORY [ARCH…]. Two builds of one commit are the same, byte by
# byte: no time but the commit's, no path and no host's name gets into them.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "$1")
shift
[ $# -gt 0 ] || set -- amd64

nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
cyclonedx=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.9.0
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

# sbom PROGRAM FILE writes what a program was built from, by the program's own word.
sbom() {
	go run -trimpath "$cyclonedx" bin -json -noserial -std -version "$PACKAGE_VERSION" -output "$2" "$1"
	sed -i "s|\"timestamp\": \"[^\"]*\"|\"timestamp\": \"$BUILD_TIME\"|" "$2"
}

# The program of this machine writes manual pages and completions.
go build -trimpath -buildvcs=false -o "$work/vswitch" ./cmd/vswitch
for ARCH in "$@"; do
	STAGE=$work/$ARCH
	for program in vswitch vswitch-cni; do
		CGO_ENABLED=0 GOOS=linux GOARCH=$ARCH go build -trimpath -buildvcs=false -pgo=cmd/vswitch/busy.pgo \
			-ldflags "-s -w -buildid= -X main.version=$PACKAGE_VERSION -X main.commit=$commit" -o "$work/$ARCH-bin/$program" ./cmd/$program
		sbom "$work/$ARCH-bin/$program" "$work/$program.json"
		file "$work/$program.json" usr/share/doc/vswitch/$program.cdx.json
	done
	file "$work/$ARCH-bin/vswitch" usr/bin/vswitch 755
	file "$work/$ARCH-bin/vswitch-cni" usr/lib/cni/vswitch-cni 755
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
	file packaging/libvirt/hooks/qemu.d/vswitch etc/libvirt/hooks/qemu.d/vswitch 755
	file packaging/switch.schema.json usr/share/vswitch/switch.schema.json
	file packaging/grafana/vswitch.json usr/share/vswitch/grafana.json
	file packaging/prometheus/alerts.yml usr/share/vswitch/alerts.yml
	file packaging/wireshark/vswitch-extcap usr/share/vswitch/vswitch-extcap 755
	file packaging/systemd/netns.conf "usr/share/doc/vswitch/examples/vswitch@.service.d/netns.conf"
	file LICENSE usr/share/licenses/vswitch/LICENSE # rpm's; Debian has it already
	file packaging/debian/copyright usr/share/doc/vswitch/copyright
	file packaging/debian/lintian-overrides usr/share/lintian/overrides/vswitch
	file packaging/NOTICE usr/share/doc/vswitch/NOTICE
	for text in docs/*.md; do
		file "$text" "usr/share/doc/vswitch/$(basename "$text")"
	done
	zipped usr/share/doc/vswitch/CHANGELOG.md.gz <CHANGELOG.md
	printf 'vswitch (%s) unstable; urgency=medium\n\n  * CHANGELOG.md.gz says what has changed.\n\n -- %s  %s\n' \
		"$PACKAGE_VERSION" "$(sed -n 's/^maintainer: //p' packaging/nfpm/nfpm.yaml)" "$(date -u -d "@$seconds" -R)" |
		zipped usr/share/doc/vswitch/changelog.gz
	find "$STAGE" -exec touch -h -d "@$seconds" {} +
	# Files alone: the directories are other packages'.
	sed "s|@ARCH@|$ARCH|; s|@PACKAGE_VERSION@|$PACKAGE_VERSION|; s|@BUILD_TIME@|$BUILD_TIME|" \
		packaging/nfpm/nfpm.yaml >"$work/nfpm.yaml"
	find "$STAGE" -type f -printf '  - {src: "%p", dst: "/%P", file_info: {owner: root, group: root}}\n' | sort |
		sed '/dst: "\/etc\//s/}$/, type: config|noreplace}/
			/dst: "\/usr\/share\/licenses\//s/}$/, packager: rpm}/
			/dst: "\/usr\/share\/lintian\//s/}$/, packager: deb}/' >>"$work/nfpm.yaml"
	for packager in deb rpm; do
		go run "$nfpm" package -f "$work/nfpm.yaml" -p $packager -t "$out/"
	done
done
(cd "$out" && sha256sum ./*.deb ./*.rpm)
