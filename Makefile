# What CI runs, and what a contributor runs: the same.

.PHONY: test lint tools counts

test: tools lint
	@if cargo nextest --version >/dev/null 2>&1; then cargo nextest run; else cargo test --lib --bins --tests; fi

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --quiet
	@# Nothing else builds them, and what is not built rots.
	cargo check --quiet --locked --manifest-path fuzz/Cargo.toml --target-dir target
	@# Building must need a C compiler and nothing more: ring, never aws-lc.
	@if cargo tree --edges normal,build,dev --invert aws-lc-sys >/dev/null 2>&1; then echo "aws-lc-sys is in the tree"; exit 1; fi

# The real clients that the tests ask with; installed from Debian when missing.
tools:
	@packaging/test-tools

# Instructions beside the committed ones; fails where they rose by more than 5 %. Deterministic, so a busy machine may run it.
counts:
	@benches/instructions/compare
