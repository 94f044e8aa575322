# Two commands: `make demo` shows what EdgeQ does, `make test` proves it. Each sets up what it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Tests call tools of the environment, such as esptool and pyocd, by their names.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# An editable install compiles nothing: without this, programs that may not write bytecode compile EdgeQ at every start.
COMPILE = $(BIN)/python -m compileall -q edgeq
C_FILES = $(shell git ls-files '*.c' '*.h' 2>/dev/null)
# Programs that tests use -> the Debian packages that bring them.
TOOLS  := gcc clang arm-none-eabi-gcc qemu-system-arm riscv64-unknown-elf-gcc qemu-system-riscv32 /usr/sbin/sshd
APT    := gcc libc6-dev clang gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm \
          gcc-riscv64-unknown-elf qemu-system-misc openssh-server

.PHONY: demo test test-slow test-arm64 lint bench bench-mcu bench-memory bench-quant bench-coral bench-latency ports system clean

demo: $(VENV)/.demo
	$(BIN)/edgeq demo

test: $(VENV)/.dev system lint
	$(BIN)/python -m pytest

# A Debian userland for 64-bit Arm, made once with debootstrap: needs root.
test-arm64: $(VENV)/.dev system
	command -v debootstrap >/dev/null || apt-get install -y -qq --no-install-recommends debootstrap qemu-user-static
	$(BIN)/python -m pytest -m slow tests/device/test_ssh_arm64.py

test-slow: $(VENV)/.dev system
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)

bench: bench-mcu bench-memory bench-quant bench-coral

# MODELS='a.tflite b.tflite' measures these instead; MCU passes more options (--board, --optimize, --write, --json).
bench-mcu: $(VENV)/.dev system
	$(BIN)/python benchmarks/mcu.py $(if $(MODELS),$(MODELS),--check) $(MCU)

# The planner's bytes beside the lower bound; MODELS as above, else benchmarks/memory.md is renewed.
bench-memory: $(VENV)/.dev
	$(BIN)/python benchmarks/memory.py $(or $(MODELS),--write)

bench-quant: $(VENV)/.dev
	$(BIN)/python benchmarks/quant.py

bench-coral: $(VENV)/.dev
	$(BIN)/python benchmarks/coral.py $(or $(MAPPING),../shared/coral/edgetpu_mapping.json)

# Estimates beside published latencies; renews benchmarks/latency.md.
bench-latency: $(VENV)/.dev
	$(BIN)/python benchmarks/latency.py $(or $(ROWS),../shared/boards/published_latency.json) --write

# Builds the firmware of every board and lists its sizes.
ports: $(VENV)/.dev system
	$(BIN)/python benchmarks/ports.py --write

# Compilers and emulators, where they can be installed; tests that need them say so otherwise.
system:
	@missing=; for tool in $(TOOLS); do command -v $$tool >/dev/null || missing=1; done; \
	if [ -n "$$missing" ] && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(APT) >/dev/null; \
	fi

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[convert,mcu,demo]'
	$(COMPILE)
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(COMPILE)
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) .edgeq build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
