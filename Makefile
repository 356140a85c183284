# The commands of README.md; each installs what it needs first.
.PHONY: demo test check audit sbom faults bench build pages tools clean

demo: pages
	cargo build --release --bins
	scripts/demo.sh

test: tools
	scripts/test.sh

# Formatting, lints and documentation, with warnings denied; documents name only what exists.
check: pages
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	scripts/check_docs.sh
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --quiet

# Licences, sources and known holes of what we depend on; says what could not be checked.
audit:
	scripts/audit.sh

# What is in each binary and in the pages, as CycloneDX, into target/sbom.
sbom:
	scripts/sbom.py

# Faults in real stacks; `scripts/faults.sh --seed 7 --only nats-wiped` runs one again.
faults: tools
	scripts/faults.sh --cycles 10

bench: tools
	scripts/bench.sh

build: pages
	cargo build --release --bins

# What the hub shows in browsers, from web/ into web/dist, which the build of the hub embeds.
pages: tools
	scripts/build_pages.sh

# System packages and nats-server, where they are missing.
tools:
	@scripts/install_packages.sh
	@scripts/install_nats_server.sh

clean:
	cargo clean
	rm -rf web/dist web/node_modules
