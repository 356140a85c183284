# The commands of README.md; each installs what it needs first.
.PHONY: demo test check faults bench build tools clean

demo: tools
	cargo build --release --bins
	scripts/demo.sh

test: tools
	scripts/test.sh

# Formatting, lints and documentation, with warnings denied; documents name only what exists.
check: tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	scripts/check_docs.sh
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --quiet

# Faults in real stacks; `scripts/faults.sh --seed 7 --only nats-wiped` runs one again.
faults: tools
	scripts/faults.sh --cycles 10

bench: tools
	scripts/bench.sh

build: tools
	cargo build --release --bins

# System packages and nats-server, where they are missing.
tools:
	@scripts/install_packages.sh
	@scripts/install_nats_server.sh

clean:
	cargo clean
