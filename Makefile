# The few commands of this project. What they need and the machine lacks goes below target/; nothing else is touched.

export PATH := $(CURDIR)/target/peers/bin:$(PATH)
# What `make hostile` runs, by parts of the tests' names.
HOSTILE_NAMES := hostile dialogs starttls secrets:: session::tests rewrite::tests fuzzing:: pool::model reply::model
HOSTILE_TESTS := $(shell echo "$(HOSTILE_NAMES)" | sed 's/[^ ]*/test(&)/g; s/ / | /g')
PROFILE := $(if $(CI),ci,default)

.PHONY: help test deliverability peers fmt lint deny bench crash hostile fuzz ci

help:
	@echo "make test   every test, against real peers (fetched below target/peers if missing)"
	@echo "make deliverability  the table of docs/deliverability.md, measured anew"
	@echo "make fmt    format the code"
	@echo "make lint   formatting and clippy, warnings are errors"
	@echo "make deny   licences, banned crates, sources"
	@echo "make bench  a queue of a million messages against one of a thousand, a client beside a thousand slow ones (minutes, 5 GB of disk)"
	@echo "make crash  every row of the crash matrix in full, as the table of docs/reliability.md (root, a quarter of an hour)"
	@echo "make hostile  hostile input, class by class, in one table of cases and those that went wrong (some minutes)"
	@echo "make fuzz   libFuzzer on every target of fuzz/, two at a time, an hour each (SECONDS_EACH=600 TARGETS=\"header session\")"
	@echo "make ci     what CI runs, in CI's way: a peer that is missing is a failure"

# Peers that were missing are told at the end, where they are seen.
test: peers
	@rm -rf target/peers/skipped target/hostile
	cargo test --quiet --locked --doc
	@if cargo nextest --version >/dev/null 2>&1; \
	then cargo nextest run --locked --profile $(PROFILE); \
	else cargo test --locked --lib --bins --tests; \
	fi; status=$$?; \
	if [ -s target/peers/skipped ]; then sort -u target/peers/skipped; fi; \
	tests/hostile-table && exit $$status

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
	cargo bench --locked --bench queue --bench slow_clients

crash: peers
	CRASH=full cargo nextest run --locked --profile crash --no-capture -E 'test(the_crash_matrix)'

# Every test that counts cases. HOSTILE=full: longer words for the smuggling.
hostile: export HOSTILE := full
hostile:
	@rm -rf target/hostile
	@if cargo nextest --version >/dev/null 2>&1; \
	then cargo nextest run --locked --profile $(PROFILE) --no-fail-fast -E '$(HOSTILE_TESTS)'; \
	else cargo test --locked --lib --test it --no-fail-fast -- $(HOSTILE_NAMES); \
	fi; tests/hostile-table

fuzz:
	@tests/peers/cargo-tool fuzz
	@fuzz/run

ci:
	CI=true .ci/run
