# Every task of the project. CI runs these targets and nothing else.
GO       ?= go
FUZZTIME ?= 60s
export CGO_ENABLED ?= 0

LINT        := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
VULNCHECK   := golang.org/x/vuln/cmd/govulncheck@v1.9.0
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

.PHONY: help setup setup-kms build build-pkcs11 test test-pkcs11 race lint fuzz e2e bench bench-cipher bench-check bench-disk bench-guest demo man generate clean

help: ## what each target does
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what the other targets need (Debian packages, Go modules)
	@scripts/setup

setup-kms: ## and the key servers that the tests talk to (Debian packages, PyPI)
	@scripts/setup-kms

build: ## the program, as one static binary: bin/sealblk
	$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/sealblk ./cmd/sealblk

build-pkcs11: ## the program with PKCS#11, which needs C: bin/sealblk-pkcs11
	CGO_ENABLED=1 $(GO) build -trimpath -tags pkcs11 -ldflags "-X main.version=$(VERSION)" -o bin/sealblk-pkcs11 ./cmd/sealblk

test: setup-kms ## unit and command tests, then the same under the race detector, then test-pkcs11
	$(GO) vet ./...
	$(GO) test -count=1 -timeout 30m ./...
	CGO_ENABLED=1 $(GO) test -count=1 -timeout 30m -race -short ./...
	@$(MAKE) --no-print-directory test-pkcs11

test-pkcs11: setup-kms build-pkcs11 ## the tests with an HSM (SoftHSM)
	CGO_ENABLED=1 $(GO) vet -tags pkcs11 ./keymgr/pkcs11/... ./cmd/sealblk
	CGO_ENABLED=1 $(GO) test -count=1 -tags pkcs11 ./keymgr/pkcs11/...
	CGO_ENABLED=1 $(GO) test -count=1 -tags pkcs11 -run PKCS11 ./cmd/sealblk

lint: setup ## golangci-lint (rules of the architecture included) and known vulnerabilities
	$(GO) run $(LINT) run ./...
	$(GO) build -overlay bench/testdata/copying/overlay.json ./blockdev/crypt # bench-disk's
	$(GO) run -exec 'env CGO_ENABLED=1' $(LINT) run --build-tags e2e,pkcs11 ./keymgr/pkcs11/... ./cmd/sealblk

fuzz: ## every fuzz target for FUZZTIME (60s)
	@scripts/fuzz $(FUZZTIME)

e2e: setup build ## the program with real guests under QEMU
	$(GO) test -count=1 -tags e2e -timeout 45m -v ./test/...

bench: build ## data-path and cipher benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./cipher/... ./blockdev/... ./vhost/...

bench-cipher: setup ## the cipher beside OpenSSL and the limit of the AES units (best on an idle machine)
	$(GO) test -count=1 -run '^TestSpeedTable$$' -v ./cipher -speed

bench-check: setup build ## the benchmark's front-end beside libblkio's (needs cargo) and fio in a guest (best on an idle machine)
	$(GO) test -count=1 -run '^TestHarnessAgreesWithLibblkio$$' -v ./test/independent -libblkio
	$(GO) build -trimpath -tags purego -o bin/sealblk-purego ./cmd/sealblk
	$(GO) run ./test/benchguest -sealblk bin/sealblk -agree bin/sealblk-purego

bench-disk: setup build ## what encryption costs on the disk under DIR (.), beside a copy instead of the cipher (10 minutes; FLAGS=--verify)
	@scripts/bench-disk $(or $(DIR),.) $(FLAGS)

bench-guest: setup build ## fio, a file system and SQLite in a guest, encryption off and on (5 minutes; FLAGS=-help)
	$(GO) run ./test/benchguest -sealblk bin/sealblk $(FLAGS)

demo: setup build ## the main job, from an empty machine to an encrypted disk in a guest
	$(GO) run ./test/demo -sealblk bin/sealblk

man: build ## the manual pages: bin/man/*.8
	bin/sealblk man bin/man

generate: ## generated files; leaves no diff (eBPF: with Debian 12's clang, which CI installs)
	@[ "$$CI" != true ] || scripts/setup clang:clang llvm-strip:llvm /usr/include/bpf/bpf_helpers.h:libbpf-dev
	$(GO) generate ./...

clean: ## remove what was built (the cache of guest images stays)
	rm -rf bin
