# `make demo` and `make test` set everything up by themselves in .venv; see README.md.
#
# PYTHON=python3.12 chooses the interpreter, 3.11 or newer; constraints.txt was made with 3.11.
#
# constraints.txt says torch==2.13.0, which 2.13.0+cpu fits as well and which pip prefers where it sees
# it. So on Linux let pip see PyTorch's own CPU builds, as its installation page says, through
# PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS; without them the plain 2.13.0 brings several GB of CUDA.

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
READY := .venv/.ready
# Every extra that runs on a CPU.
EXTRAS := train,tensorboard,export,compare,quantize,openvino,litert,ncnn,coreml,tensorrt-rtx,photo,video,scale,eval,bench,dev
# The wheel carries the INT8 model; `make wheel FP32=1` the FP32 one as well, four times its size.
PACKED := runtime/models/aminet-edge

.PHONY: demo test soak bench arm report setup wheel clean

demo: setup
	@$(BIN)/python -m benchmarks.demo

test: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q

soak: setup
	$(BIN)/pytest -q -m soak -o faulthandler_timeout=3600

# All that README and docs publish, into docs/measured/ and the pages; needs what `make demo` makes
# and an idle machine, about ten minutes. FACES=DIR (celeba-val.tar, celeba-test.tar, ...) measures
# quality and drift on real faces again, too, which takes longer.
MEASURED := docs/measured
bench: setup
	$(BIN)/python -m benchmarks.latency --out $(MEASURED)/latency.json
	$(if $(PAPER),$(BIN)/python -m benchmarks.latency --artifact $(PAPER) --baselines 'torch eager' --batch 1 --out $(MEASURED)/latency-paper.json)
	$(BIN)/python -m benchmarks.studies.throughput --out $(MEASURED)/throughput.json
	$(BIN)/python -m benchmarks.studies.profile --out $(MEASURED)/profile.json
	$(BIN)/python -m benchmarks.studies.formats --out $(MEASURED)/formats.json
	$(BIN)/python -m benchmarks.studies.coldstart --artifact artifacts/aminet-edge/int8.onnx --out $(MEASURED)/coldstart.json
	$(if $(FACES),$(BIN)/python -m benchmarks.accuracy --data $(VAL) $(addprefix $(FACES)/,$(TESTS)) --artifact artifacts/aminet-edge/int8.onnx --checkpoint $(wildcard aminet/weights/*-edge.safetensors aminet/weights/aminet-s.safetensors) --out $(MEASURED)/quality.json)
	$(if $(FACES),$(BIN)/python -m benchmarks.studies.real_faces --artifact $(MODELS) --data $(FACES)/celeba-test.tar --calib $(FACES)/celeba-train-0.tar --out $(MEASURED)/drift.json)
	$(if $(FACES),$(BIN)/python -m export.onnx --checkpoint calib_data/upscaler.safetensors --out $(CALIBRATED))
	$(if $(FACES),$(BIN)/python -m benchmarks.studies.quantizers --artifact $(CALIBRATED) --data $(VAL) --out $(MEASURED)/quantizers.json)
	$(if $(FACES),$(BIN)/python -m benchmarks.studies.engines --artifact $(CALIBRATED) --data $(VAL) --faces 24 --out $(MEASURED)/engines.json)
	$(if $(FACES),$(BIN)/python -m benchmarks.studies.ablation --data $(VAL) --out $(MEASURED)/ablation.json)
	$(if $(FACES),$(BIN)/python -m benchmarks.studies.browser --webgpu --artifact $(MODELS) --data $(VAL) --peer --out $(MEASURED)/web.json)
	$(if $(FACES),$(BIN)/python -m benchmarks.studies.targets --artifact $(MODELS) --data $(VAL) --out $(MEASURED)/targets.json)
	$(if $(FACES),$(WILD) --data $(addprefix $(FACES)/,celeba-test.tar lfw-test.tar helen-test.tar) --faces 60 $(REAL_INT8) --out $(MEASURED)/wild.json)
	$(if $(FACES),$(WILD) --data $(FACES)/celeba-test.tar --faces 16 --sizes 16 24 32 48 --metrics lpips identity --realesrgan $(REAL_INT8) --out $(MEASURED)/wild-perceptual.json)
	$(if $(FACES),$(WILD) --data $(FACES)/celeba-test.tar --faces 60 --sizes 16 24 32 48 --turn 15 --out $(MEASURED)/wild-turned.json)
	$(if $(FACES),$(BIN)/python -m benchmarks.studies.flicker --data $(FACES)/celeba-test.tar --checkpoint $(wildcard aminet/weights/*-real.safetensors) --out $(MEASURED)/flicker.json)
	$(BIN)/python -m benchmarks.publish
PAPER := $(wildcard artifacts/aminet-s/*.onnx)
REAL_INT8 := --artifact artifacts/aminet-real/int8.onnx --backend onnxruntime
MODELS := artifacts/aminet-edge artifacts/aminet-real
# Weights without trained ranges: what calibrations are compared with.
CALIBRATED := artifacts/calibrated/aminet-edge/fp32.onnx
WILD := $(BIN)/python -m benchmarks.wild --photo-mode --checkpoint $(wildcard aminet/weights/*.safetensors)
VAL = $(FACES)/celeba-val.tar
TESTS := celeba-test.tar fsrnet-celeba-test.tar helen-test.tar lfw-test.tar

# On emulated ARM processors: 20 minutes, and 120 MB of downloads the first time; stopped, it goes on.
arm: setup
	$(BIN)/python -m benchmarks.arm --resume --out docs/measured/arm.json
	$(BIN)/python -m benchmarks.publish

report: setup
	$(BIN)/python -m benchmarks.report

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed and was not found; install it, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "error: $(PYTHON) is not Python 3.11 or newer; name another: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

wheel: setup $(PACKED)/int8.onnx
	$(if $(FP32),$(BIN)/python -m export.onnx --out $(PACKED)/fp32.onnx,rm -f $(PACKED)/fp32.onnx $(PACKED)/fp32.onnx.json)
	$(BIN)/python -m hatchling build -t wheel

$(PACKED)/int8.onnx: aminet/weights/aminet-edge.safetensors $(shell find aminet export quantize runtime -name '*.py' -o -name '*.png')
	$(BIN)/python -m export.onnx --out $(PACKED)/fp32.onnx
	$(BIN)/python -m quantize.int8 --artifact $(PACKED)/fp32.onnx --target cpu,openvino

aminet/weights/aminet-edge.safetensors:
	@echo "error: $@ not found. Create it with: $(BIN)/python -m aminet.train --help" >&2; exit 1

clean:
	rm -rf .venv dist artifacts runtime/models .work .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
