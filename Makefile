# The targets that people and .ci/run call.
.PHONY: setup run install test clients check semver bench bench-peers bench-parts bench-wsmux bench-bridge soak pictures fuzz doc clean

CARGO ?= cargo
# What the tests need beyond the Rust toolchain; installed where missing.
PACKAGES := chromium curl nginx-light nodejs npm python3-venv faketime slowhttptest nghttp2-client openssl rsyslog prometheus tmux lighttpd tigervnc-standalone-server xterm
BENCH_PACKAGES := nginx-light wrk

# Expose the built-in sample site (or TARGET=3000) through a relay on this machine.
run:
	@command -v $(CARGO) >/dev/null || { echo "please install Rust first: https://rustup.rs" >&2; exit 1; }
	@$(CARGO) run --release --quiet -- dev $(TARGET)

# The program, and the library that `adit bridge` loads into what it wraps.
PREFIX ?= /usr/local
install:
	$(CARGO) build --release --locked
	install -D target/release/adit $(DESTDIR)$(PREFIX)/bin/adit
	install -D -m 644 target/release/libadit_rebind.so $(DESTDIR)$(PREFIX)/lib/adit/libadit_rebind.so

setup:
	@deploy/setup.sh $(PACKAGES)
	@deploy/tools.sh

test: setup
	$(CARGO) test
	$(CARGO) test --features otlp --test otlp
	@$(MAKE) --no-print-directory clients

# The clients in other languages: linted, tested against the program as it was built last, and run through its
# conformance kit.
clients: export ADIT_BIN = $(CURDIR)/target/debug/adit
clients: PYTHON = $(CURDIR)/target/tools/bin/websockets-python
clients: KIT = $(ADIT_BIN) conform client --
clients: setup
	cd clients/go && test -z "$$(gofmt -l .)" && go vet ./... && go test ./...
	cd clients/python && $(PYTHON) -m ruff format --check -q && $(PYTHON) -m ruff check -q && $(PYTHON) -m mypy
	cd clients/python && PYTHONPATH=src $(PYTHON) -W error -m unittest -b -q
	cd clients/typescript && npm ci --silent --ignore-scripts --no-audit --no-fund && npm run --silent check && npm test --silent
	cd clients/go && go build -o $(CURDIR)/target/adit-go ./cmd/adit-go
	$(KIT) target/adit-go --port {port}
	PYTHONPATH=clients/python/src $(KIT) $(PYTHON) -m adit
	$(KIT) node clients/typescript/dist/cli.js

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --quiet --features otlp --bins --test otlp -- -D warnings
	for features in "" client relay bridge conform; do \
	  $(CARGO) clippy --quiet --no-default-features --features "$$features" -- -D warnings || exit 1; done
	$(CARGO) fetch --locked --quiet
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked --quiet cargo-deny
	$(CARGO) deny --offline check bans licenses sources
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --quiet
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --quiet --lib --no-default-features --features client

# What has changed for users of the library since the commit BASE.
BASE ?= HEAD~1
semver:
	@command -v cargo-semver-checks >/dev/null || $(CARGO) install --locked --quiet cargo-semver-checks
	$(CARGO) semver-checks --baseline-rev $(BASE)

# The tables into docs/speed.md and docs/resilience.md; BENCH=--quick only prints rough ones.
bench:
	@deploy/setup.sh $(BENCH_PACKAGES)
	$(CARGO) bench --bench compare -- --nginx-streams $(or $(BENCH),--write docs/speed.md)
	$(CARGO) bench --bench fairness -- $(or $(BENCH),--write docs/resilience.md)

# The same loads beside other relays, three times from the start.
bench-peers:
	@deploy/setup.sh $(BENCH_PACKAGES)
	@deploy/peers.sh
	$(CARGO) bench --bench compare -- --nginx-streams --peers $(or $(BENCH),--runs 3 --write docs/speed.md)

# The frame codec, heads and the registry, each by itself.
bench-parts:
	$(CARGO) bench --bench parts

# A session of wsmux beside one data socket; BENCH="--threads 2", or a part of a line's name.
bench-wsmux:
	$(CARGO) bench --bench wsmux -- $(BENCH)

# adit bridge beside lighttpd and websockify, into docs/speed.md.
bench-bridge:
	@deploy/setup.sh lighttpd websockify
	$(CARGO) bench --bench bridge -- --write docs/speed.md

# Mixed life for SOAK_SECONDS; fewer are a rough look, SOAK="--write docs/resilience.md" keeps the report.
SOAK_SECONDS ?= 600
soak:
	ulimit -n $$(ulimit -Hn) && $(CARGO) bench --bench soak -- --seconds $(SOAK_SECONDS) $(SOAK)

# docs/dashboard/*.png, after a change of what the dashboard looks like; look at each of them.
pictures: setup
	$(CARGO) test --bench pictures

# Each target for SECONDS; needs a nightly toolchain. What it finds is in fuzz/artifacts; what is worth keeping goes to
# fuzz/seeds, under a name that says what it broke. No sanitizer, as there is no unsafe code to watch: several times the
# tries.
SECONDS ?= 30
fuzz:
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked --quiet cargo-fuzz
	for target in $$(ls fuzz/seeds); do mkdir -p fuzz/corpus/$$target; \
	  $(CARGO) +nightly fuzz run -s none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	  -max_total_time=$(SECONDS) -max_len=4096 || exit 1; done

doc:
	$(CARGO) doc --no-deps --open

clean:
	$(CARGO) clean
