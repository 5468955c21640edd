# Maintainers' commands; `.ci/run` runs the same checks.
.PHONY: test test-isa ptx neon memcheck miri darwin objects lint doc deny bench peers peers-table cluster goldens parity-full smoke pictures video coco resplits explain explain-pictures explain-goals report tiles

test:            ## the README's test command
	cargo test --release --workspace

ISAS ?= $(if $(filter aarch64 arm64,$(shell uname -m)),scalar neon,scalar avx2 avx512)
test-isa:        ## the whole suite once per instruction set
	for isa in $(ISAS); do RTFORMER_ISA=$$isa cargo test --release --workspace || exit 1; done

neon:            ## the kernels and the tiny networks on 64-bit Arm, under qemu on other machines
	tests/neon.sh

memcheck:        ## the kernels' suite under valgrind, seven minutes
	tests/memcheck.sh

miri:            ## the kernels' suite under Miri
	tests/miri.sh

darwin:          ## check that the workspace compiles for macOS
	tests/darwin.sh

ptx:             ## regenerate the PTX and check it with ptxas; CI fails if it differs from the sources
	$(PYTHON) kernels/gpu/ptx.py

objects:         ## `segment` on an S3 server with injected failures; PYTHON=with moto[server] and boto3
	cargo test --release --features object-store --lib cli::objects
	cargo build --release --features object-store
	$(PYTHON) tests/objects.py --program target/release/rtformer

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

deny:            ## licences, sources, duplicates; advisories if their database can be fetched
	cargo deny check bans licenses sources
	cargo deny check advisories || echo "SKIPPED: the advisory database is not available"

bench:
	cargo bench

PEERS ?=
peers:           ## compare with ONNX Runtime and OpenVINO, see benches/peers/README.md; PEERS=--quick takes a minute
	cargo build --release
	python3 benches/peers/peers.py measure $(PEERS)

peers-table:     ## write the results of `make peers` into the README
	python3 benches/peers/peers.py table --readme README.md

cluster:         ## Ray on a local cluster that loses an actor, a driver and a node, and the tests of Ray and Daft; PYTHON must be a version that Ray supports
	$(PYTHON) -m venv target/cluster
	target/cluster/bin/pip install --quiet './python[test,ray,daft]' grpcio 'fsspec[http]'
	target/cluster/bin/pytest -q python/tests/test_clusters.py
	target/cluster/bin/python python/tests/cluster.py

GOLDENS ?= target/goldens
PYTHON ?= python3
goldens:         ## full-width goldens from PaddleSeg; see tests/data/README.md for what it needs
	$(PYTHON) tests/data/reference.py full --out $(GOLDENS) --photo tests/data/street/0016E5_07959.jpg

parity-full:     ## compare with the goldens of `make goldens`
	RTFORMER_GOLDENS=$(abspath $(GOLDENS)) cargo test --release --test parity --test pdparams

smoke:           ## check the training recipe against the program, seven minutes; CAMVID=folder, TEACHERS=folder, PYTHON=with weights/train/requirements.txt
	cargo build --release
	$(PYTHON) weights/train/check.py --rtformer target/release/rtformer --data $(CAMVID) $(if $(TEACHERS),--teachers $(TEACHERS))

pictures:        ## the README's and the model card's pictures, from the embedded weights; CAMVID and PYTHON as for smoke
	cargo build --release
	$(PYTHON) weights/train/pictures.py --rtformer target/release/rtformer --data $(CAMVID)

coco:            ## compare `segment --emit rle,polygons` with its masks through pycocotools; PYTHON with pycocotools, numpy and pillow
	cargo build --release
	$(PYTHON) tests/data/coco.py check target/release/rtformer

WEIGHTS ?= weights/rtformer-slim-camvid.safetensors
EXPLAINED ?= target/explained.safetensors
explain:         ## train an explainer: WEIGHTS= without one in, EXPLAINED= out; CAMVID and PYTHON as for smoke
	cargo build --release
	target/release/rtformer explain $(CAMVID)/train --labels $(CAMVID)/train_labels --weights $(WEIGHTS) --emit table -o target/explain-table --overwrite
	$(PYTHON) weights/train/explain.py target/explain-table --weights $(WEIGHTS) --out $(EXPLAINED)

explain-pictures: ## the documentation's pictures of explanations
	$(PYTHON) weights/train/explain_pictures.py --rtformer target/release/rtformer --data $(CAMVID) --weights $(EXPLAINED) --out docs/book/src/pictures --work target/explain-pictures

explain-goals:   ## measure the explainer of `make explain` on CamVid's val and on held-out parts of train, with controls
	$(PYTHON) weights/train/explain_goals.py --rtformer target/release/rtformer --data $(CAMVID) --weights $(EXPLAINED) --table target/explain-table --work target/explain-goals

video:           ## the long measurements of videos, six minutes; needs ffmpeg; CAMVID=folder also measures the accuracy of smoothing
	cargo build --release
	$(if $(CAMVID),CAMVID=$(CAMVID)) python3 tests/video.py target/release/rtformer

WEIGHTS ?= weights/rtformer-slim-camvid.safetensors
resplits:        ## the guarantee of `calibrate --images` over 200 splits of CamVid, ten minutes; CAMVID=folder with train and val, WEIGHTS=file
	cargo build --release
	rm -rf target/resplits && mkdir -p target/resplits/photos
	ln -s $(abspath $(CAMVID))/train $(abspath $(CAMVID))/val target/resplits/photos/
	target/release/rtformer calibrate --images target/resplits/photos --epsilon 0.05 --weights $(WEIGHTS) \
	  -o target/resplits/calibrated.safetensors --write-losses target/resplits/losses.csv
	$(PYTHON) tests/resplits.py --program target/release/rtformer --losses target/resplits/losses.csv
	$(PYTHON) tests/resplits.py --program target/release/rtformer --losses target/resplits/losses.csv --beyond 0.05

report:          ## check the page of `eval --report` in Chromium; PYTHON with pillow, or CAMVID=folder; SHOTS=folder keeps screenshots
	cargo build --release
	$(if $(CAMVID),CAMVID=$(CAMVID)) $(PYTHON) tests/report.py target/release/rtformer $(SHOTS)

tiles:           ## a photo of 20,000 x 20,000 pixels with `segment --tile`: memory, and its mask compared with a blend in memory; minutes, 2 GB of disk
	cargo test --release --test tiles -- --ignored --nocapture
