# The few commands of this project. What they need and the machine lacks goes below target/; nothing else is touched.

export PATH := $(CURDIR)/target/peers/bin:$(PATH)
# What `make hostile` runs, by parts of the tests' names.
HOSTILE_NAMES := hostile dialogs starttls secrets:: session::tests rewrite::tests fuzzing:: pool::model reply::model
HOSTILE_TESTS := $(shell echo "$(HOSTILE_NAMES)" | sed 's/[^ ]*/test(&)/g; s/ / | /g')
PROFILE := $(if $(CI),ci,default)

# What `make test-future` runs, and how many days ahead. The clean clone tests no date and builds everything.
DAYS := 400 4000
FUTURE_TESTS := not test(clean_clone)

# $(call suite,OPTIONS OF BOTH RUNNERS,OPTIONS OF NEXTEST,OPTIONS OF CARGO TEST): the tests, whatever runner there is. One
# that fails keeps no other from running.
suite = if cargo nextest --version >/dev/null 2>&1; \
	then cargo nextest run --locked --profile $(PROFILE) --no-fail-fast $(1) $(2); \
	else cargo test --locked --no-fail-fast $(1) $(3); \
	fi

.PHONY: help deb reference test test-future deliverability peers fmt lint doc deny bench crash hostile fuzz ci

help:
	@echo "make test   every test, against real peers (fetched below target/peers if missing)"
	@echo "make test-future  the same tests on a later day: in 400 and in 4000 days (DAYS=\"30 366\")"
	@echo "make deliverability  the table of docs/deliverability.md, measured again"
	@echo "make reference  config.toml and docs/configuration.md, written again from the schema in src/config"
	@echo "make deb    the Debian package, in target/debian"
	@echo "make fmt    format the code"
	@echo "make lint   formatting and clippy, warnings are errors"
	@echo "make doc    the code's documentation, in target/doc; a broken link is an error"
	@echo "make deny   licences, banned crates, sources"
	@echo "make bench  the gateway beside Postfix and Exim, as the tables of docs/performance.md; long queues, slow clients (an hour, 10 GB of disk)"
	@echo "make crash  every row of the crash matrix in full, as the table of docs/reliability.md (root, a quarter of an hour)"
	@echo "make hostile  hostile input, class by class, in one table of cases and those that went wrong (some minutes)"
	@echo "make fuzz   libFuzzer on every target of fuzz/, two at a time, an hour each (SECONDS_EACH=600 TARGETS=\"header session\")"
	@echo "make ci     what CI runs, in CI's way: a peer that is missing is a failure"

# Each part runs, whether or not those before it passed; what failed, and peers that were missing, are named at the end,
# where they are seen.
test: peers
	@rm -rf target/peers/skipped target/hostile
	@failed=; \
	cargo test --quiet --locked --no-fail-fast --doc || failed="$$failed, the doc tests"; \
	{ $(call suite,,,--lib --bins --tests); } || failed="$$failed, the suite"; \
	if [ -s target/peers/skipped ]; then sort -u target/peers/skipped; fi; \
	tests/hostile-table || failed="$$failed, the hostile table"; \
	if [ -n "$$failed" ]; then echo "make test: failed:$${failed#,}" >&2; exit 1; fi

# Not part of CI: it takes as long as the suite, for each of the days.
test-future: peers
	@rm -rf target/peers/skipped
	@failed=; \
	for days in $(DAYS); do \
	echo "make test-future: in $$days days"; \
	runner="target.'cfg(all())'.runner=['$(CURDIR)/tests/in-days', '$$days']"; \
	{ $(call suite,--config "$$runner",-E '$(FUTURE_TESTS)',--lib --bins --tests -- --skip clean_clone); } \
	|| failed="$$failed, in $$days days"; \
	done; \
	if [ -s target/peers/skipped ]; then sort -u target/peers/skipped; fi; \
	if [ -n "$$failed" ]; then echo "make test-future: failed:$${failed#,}" >&2; exit 1; fi

reference:
	WAXSEAL_WRITE_REFERENCE=1 cargo test --quiet --locked --lib the_shipped_files_say_what_the_schema_says

# For arm64 the allocator is built for the largest pages that a kernel may have.
deb:
	@tests/peers/cargo-tool deb
	if [ "$$(uname -m)" = aarch64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi; cargo build --release --locked
	deploy/debian/prepare target/release/waxseal
	cargo deb --locked --no-build

deliverability: peers
	cargo test --quiet --locked --test it deliverability::no_filter -- --nocapture

peers:
	@tests/peers/install

fmt:
	cargo fmt

lint:
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings

# Of private items too: the program is not a library that others use.
doc: export RUSTDOCFLAGS := -D warnings
doc:
	cargo doc --no-deps --locked --document-private-items

deny:
	@tests/peers/cargo-tool deny
	cargo deny --locked check licenses bans sources

bench: peers
	cargo bench --locked --bench gateway -- --write
	cargo bench --locked --bench parts --bench queue --bench slow_clients

crash: peers
	CRASH=full cargo nextest run --locked --profile crash --no-capture -E 'test(the_crash_matrix)'

# Every test that counts cases. HOSTILE=full: longer words for the smuggling.
hostile: export HOSTILE := full
hostile:
	@rm -rf target/hostile
	@failed=; \
	{ $(call suite,,-E '$(HOSTILE_TESTS)',--lib --test it -- $(HOSTILE_NAMES)); } || failed="$$failed, the tests"; \
	tests/hostile-table || failed="$$failed, the table"; \
	if [ -n "$$failed" ]; then echo "make hostile: failed:$${failed#,}" >&2; exit 1; fi

fuzz:
	@tests/peers/cargo-tool fuzz
	@fuzz/run

ci:
	CI=true .ci/run
