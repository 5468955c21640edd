# What a maintainer runs; `.ci/run` runs the same.
.PHONY: test test-isa lint doc deny bench goldens parity-full smoke

test:            ## everything, as the README says
	cargo test --release --workspace

test-isa:        ## the whole suite once per instruction set
	for isa in scalar avx2 avx512; do RTFORMER_ISA=$$isa cargo test --release --workspace || exit 1; done

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

deny:            ## licences, sources, duplicates; advisories where their database can be fetched
	cargo deny check bans licenses sources
	cargo deny check advisories || echo "SKIPPED: no advisory database here"

bench:
	cargo bench

GOLDENS ?= target/goldens
PYTHON ?= python3
goldens:         ## full-width goldens from PaddleSeg; see tests/data/README.md for what it needs
	$(PYTHON) tests/data/reference.py full --out $(GOLDENS) --photo tests/data/street/0016E5_07959.jpg

parity-full:     ## against the goldens of `make goldens`
	RTFORMER_GOLDENS=$(abspath $(GOLDENS)) cargo test --release --test parity --test pdparams

smoke:           ## five minutes: the training recipe against the program; CAMVID=folder, PYTHON=one with weights/train/requirements.txt
	cargo build --release
	$(PYTHON) weights/train/check.py --rtformer target/release/rtformer --data $(CAMVID)
