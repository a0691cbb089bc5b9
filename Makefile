# The targets are listed by `make help`. Everything runs on a fresh Debian or Ubuntu
# with Go 1.25 or later; what else is needed, `make deps` installs.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null)

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 10s

# Go records the state of the repository in what it builds, and fails where git
# refuses, as it does for another user's clone. The linker is told it above.
export GOFLAGS += -buildvcs=false

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## install what building and testing need beside Go (as root)
	@qemu-examples/lib/deps.sh

# What the compiler should take for busy. The file is not named default.pgo, since `go build ./...`
# and `go test ./...` would then compile each package twice.
BUSY := cmd/vswitch/busy.pgo

.PHONY: build
build: ## build ./vswitch and ./vswitch-cni, static binaries
	CGO_ENABLED=0 $(GO) build -trimpath -pgo=$(BUSY) -ldflags '-X main.version=$(VERSION) -X main.commit=$(COMMIT)' -o vswitch ./cmd/vswitch
	CGO_ENABLED=0 $(GO) build -trimpath -o vswitch-cni ./cmd/vswitch-cni

.PHONY: demo
demo: ## two virtual machines talk through a switch (as root)
	@qemu-examples/two-vms/run.sh

.PHONY: examples
examples: ## run every example in qemu-examples/ (as root)
	@for example in qemu-examples/*/run.sh; do echo "# $$example"; "$$example"; done

# The conformance of port kinds, with its count of allocations, which the race
# detector would spoil.
CONFORMANCE := ^Test(Conformance|Dgram|Stream)//NoAllocs

# What must be quick is held to it where nothing else runs.
ALONE := ^Test(LAG|ActiveBackup)$$

# Without root the tests that need it are left out, and named at the end. The race
# detector needs a C compiler. It allocates by itself, so tests that count allocations
# have a run of their own, and those that start daemons have another without the kernel's
# fast path and in the sandbox. One package runs real virtual machines, on an emulated CPU and beside the
# other tests, which takes its time.
.PHONY: test
test: ## run all tests; as root, with network namespaces and virtual machines
	@qemu-examples/lib/deps.sh || [ "$$(id -u)" -ne 0 ]
	@race=; ! command -v gcc >/dev/null || race=-race; \
	allocs=$$(grep -rl AllocsPerRun --include='*_test.go' . | xargs -n 1 dirname | sort -u); \
	echo go test -run Alloc $$allocs; \
	$(GO) run ./internal/test/gotest -count=1 -run Alloc $$allocs; \
	echo "go test -run '$(CONFORMANCE)' ./port/..."; \
	$(GO) run ./internal/test/gotest -count=1 -run '$(CONFORMANCE)' ./port/...; \
	echo "VSWITCH_TEST_ALONE=1 go test -run '$(ALONE)' ./internal/test/l2test"; \
	VSWITCH_TEST_ALONE=1 $(GO) run ./internal/test/gotest -count=1 -parallel 1 -run '$(ALONE)' ./internal/test/l2test; \
	echo go test $$race ./...; \
	$(GO) run ./internal/test/gotest $$race -count=1 -timeout 12m ./...; \
	daemons=$$(grep -rl testenv/daemontest --include='*_test.go' ./internal/test/l2test ./internal/test/vmtest ./internal/feature/guard ./cmd | xargs -n 1 dirname | sort -u); \
	echo VSWITCH_TEST_FASTPATH=off VSWITCH_SANDBOX=auto go test -skip ^TestFast $$daemons; \
	VSWITCH_TEST_FASTPATH=off VSWITCH_SANDBOX=auto $(GO) run ./internal/test/gotest -count=1 -skip ^TestFast -timeout 12m $$daemons; \
	cd bench/peers; \
	echo go test $$race ./... in bench/peers; \
	$(GO) run github.com/vswitch/vswitch/internal/test/gotest $$race -count=1 ./...

# Ubuntu has Chromium as a snap only, which needs a running snapd: there its tests are left out.
.PHONY: test-interop
test-interop: ## test beside FRR, libvirt, Podman and Chromium, which it installs (as root)
	@chromium=chromium; ! grep -qx ID=ubuntu /etc/os-release || chromium=; \
	qemu-examples/lib/deps.sh iproute2 iputils-ping frr $$chromium fonts-dejavu-core \
		qemu-system-x86 busybox-static iperf3 ethtool lz4 xz-utils zstd libvirt-daemon-system libvirt-clients \
		podman crun containernetworking-plugins
	$(GO) vet -tags interop ./internal/test/interop
	$(GO) run ./internal/test/gotest -tags interop -count=1 ./internal/test/interop

.PHONY: bench
bench: ## run the benchmarks (as root with those of real TAPs)
	$(GO) test -run '^$$' -bench . ./...
	cd bench/peers && $(GO) test -run '^$$' -bench . ./...

.PHONY: bench-peers
bench-peers: build ## compare with the Linux bridge, Open vSwitch and gvisor-tap-vsock (as root); ARGS="-help" lists flags
	@qemu-examples/lib/deps.sh iproute2 nftables ebtables openvswitch-switch openvswitch-switch-dpdk dpdk-dev
	cd bench/peers && $(GO) run . $(ARGS)

# The switch works with shared memory with few and many frames, tunnels on sockets, and TAPs
# without the fast path.
.PHONY: profile
profile: ## take cmd/vswitch/busy.pgo anew (as root; two minutes on an idle machine)
	@qemu-examples/lib/deps.sh iproute2 dpdk-dev
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; export VSWITCH_PROFILE="$$dir"; \
	$(GO) build -tags profile -o "$$dir/vswitch" ./cmd/vswitch; \
	peers() { (cd bench/peers && $(GO) run . -vswitch profiled="$$dir/vswitch" -only profiled "$$@"); }; \
	peers -more -rounds 4 -work 'in flight'; \
	peers -overlay -rounds 2; \
	peers -rounds 1 -work '2 ports|8 ports'; \
	find "$$dir" -name '*.pprof' -empty -delete; \
	$(GO) tool pprof -proto "$$dir"/*.pprof >$(BUSY)

.PHONY: fuzz
fuzz: ## run each fuzz test for FUZZTIME (10s)
	@for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' "$$package" | grep '^Fuzz' || true); do \
			.ci/fuzz "$$package" "$$target" $(FUZZTIME); \
		done; \
	done

.PHONY: mutate
mutate: ## test the tests of a package: PKG=./switch N=20 ARGS="-at shape.go" (lists changes that no test notices)
	$(GO) run ./internal/test/mutate $(if $(N),-n $(N)) $(ARGS) $(or $(PKG),$(error name a package: make mutate PKG=./switch N=20))

.PHONY: lint
lint: ## gofmt, go mod tidy, go vet (for arm64 too), staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	[ -z "$$unformatted" ] || { echo "run gofmt -w on: $$unformatted" >&2; exit 1; }
	for module in . bench/peers; do \
		(cd $$module && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) vet -tags profile ./... && GOARCH=arm64 $(GO) vet ./... && $(GO) run $(STATICCHECK) ./...); \
	done

.PHONY: generate
generate: ## compile internal/linux/fastpath/bpf anew (installs clang-14 and llvm-14, as root)
	@qemu-examples/lib/deps.sh clang-14 llvm-14
	$(GO) generate ./...

.PHONY: install
install: build ## install to DESTDIR and PREFIX (/usr/local): binaries, manual pages, shell completion
	install -D -m 755 vswitch '$(DESTDIR)$(PREFIX)/bin/vswitch'
	install -D -m 755 vswitch-cni '$(DESTDIR)$(PREFIX)/lib/cni/vswitch-cni'
	install -D -m 755 packaging/wireshark/vswitch-extcap '$(DESTDIR)$(PREFIX)/share/vswitch/vswitch-extcap'
	install -d '$(DESTDIR)$(PREFIX)/share/'{man/man5,man/man8,bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}
	./vswitch man >'$(DESTDIR)$(PREFIX)/share/man/man8/vswitch.8'
	./vswitch man state >'$(DESTDIR)$(PREFIX)/share/man/man5/vswitch.state.5'
	./vswitch completion bash >'$(DESTDIR)$(PREFIX)/share/bash-completion/completions/vswitch'
	./vswitch completion zsh >'$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_vswitch'
	./vswitch completion fish >'$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/vswitch.fish'

.PHONY: package
package: ## build the packages for Debian and for rpm in dist/; ARCH="amd64 arm64"
	packaging/build.sh dist $(ARCH)

.PHONY: package-test
package-test: ## build the packages twice, check them, and install, run, upgrade and remove one (as root, in a root of its own)
	@qemu-examples/lib/deps.sh lintian
	packaging/test.sh

.PHONY: clean
clean: ## remove what was built, and the guests' images
	rm -rf vswitch vswitch-cni .cache dist
