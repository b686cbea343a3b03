# The few commands of this project. What they need and the machine lacks goes below target/; nothing else is touched.

export PATH := $(CURDIR)/target/peers/bin:$(PATH)
PROFILE := $(if $(CI),ci,default)

.PHONY: help test deliverability peers fmt lint deny bench crash fuzz ci

help:
	@echo "make test   every test, against real peers (fetched below target/peers if missing)"
	@echo "make deliverability  the table of docs/deliverability.md, measured anew"
	@echo "make fmt    format the code"
	@echo "make lint   formatting and clippy, warnings are errors"
	@echo "make deny   licences, banned crates, sources"
	@echo "make bench  a queue of a million messages against one of a thousand (minutes, 5 GB of disk)"
	@echo "make crash  every row of the crash matrix in full, as the table of docs/reliability.md (root, a quarter of an hour)"
	@echo "make fuzz   libFuzzer on every target of fuzz/, two at a time, an hour each (SECONDS_EACH=600 TARGETS=\"header session\")"
	@echo "make ci     what CI runs, in CI's way: a peer that is missing is a failure"

# Peers that were missing are told at the end, where they are seen.
test: peers
	@rm -f target/peers/skipped
	cargo test --quiet --locked --doc
	@if cargo nextest --version >/dev/null 2>&1; \
	then cargo nextest run --locked --profile $(PROFILE); \
	else cargo test --locked --lib --bins --tests; \
	fi; status=$$?; \
	if [ -s target/peers/skipped ]; then sort -u target/peers/skipped; fi; \
	exit $$status

deliverability: peers
	cargo test --quiet --locked --test it deliverability::no_filter -- --nocapture

peers:
	@tests/peers/install

fmt:
	cargo fmt

lint:
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings

deny:
	@tests/peers/cargo-tool deny
	cargo deny --locked check licenses bans sources

bench:
	cargo bench --locked --bench queue

crash: peers
	CRASH=full cargo nextest run --locked --profile crash --no-capture -E 'test(the_crash_matrix)'

fuzz:
	@tests/peers/cargo-tool fuzz
	@fuzz/run

ci:
	CI=true .ci/run
