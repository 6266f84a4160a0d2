# The C++ on a 64-bit ARM processor that qemu plays (`make test-arm`), on Debian with x86-64. A CPU of ARM_CPUS
# multiplies bytes by `smmla`, by `sdot`, or has neither. First the encoder's results over a grid of sizes are compared
# with those of AVX2 here; then come the fuzz targets on random inputs, and the tests of encoder, ops and tokenizer.
ARM := $(CURDIR)/build/arm
ARM_CPUS ?= max neoverse-n1 cortex-a72
# Those that PyTorch's wheel runs on: on others `import torch` ends with an illegal instruction.
ARM_TORCH_CPUS ?= max neoverse-n1
ARM_INPUTS ?= 300
ARM_TESTS ?= tests/model/test_cpu_encoder.py tests/model/test_cpu_encoder_broken.py tests/ops/test_cpu_*.py \
	tests/tokenizer
# This qemu (7.2) fails where a forked child begins threads, and a limit of memory is its own.
ARM_LEFT_OUT := --deselect tests/model/test_cpu_encoder.py::test_the_first_call_may_be_a_forked_childs \
	--deselect tests/tokenizer/test_ends.py::test_exhausted_memory_is_an_error_in_any_thread
QEMU := qemu-aarch64 -L $(ARM)/root -cpu

# One place for all of it: the build of either processor differs by compiler and directory alone.
ARM_FLAGS := -std=c++20 -O3 -fPIC -fvisibility=hidden -pthread -Wall -Wextra -MMD -MP -Icsrc
ARM_ENCODER := batch encoder weights team \
	$(filter-out kernels_blocks_%,$(patsubst csrc/cpu/%.cpp,%,$(wildcard csrc/cpu/kernels*.cpp)))
ARM_OPS := $(filter-out bindings%,$(patsubst csrc/cpu/%.cpp,%,$(wildcard csrc/cpu/*.cpp)))
objects = $(patsubst %,$(ARM)/$(1)/cpu/%.o,$(2))
ARM_RUN_TARGET := $(ARM)/objects/fuzz/run_target.o

$(ARM)/tools:
	mkdir -p $(ARM)
	command -v qemu-aarch64 && command -v aarch64-linux-gnu-g++ \
		|| apt-get install -y --no-install-recommends qemu-user g++-aarch64-linux-gnu
	touch $@

# A Python for ARM, unpacked. apt reads the lists of that architecture into a folder of its own: this system's stay as
# they are.
ARM_PACKAGES := libbz2-1.0 libc6 libcrypt1 libexpat1 libffi8 libgcc-s1 libgomp1 liblzma5 libncursesw6 libreadline8 \
	libsqlite3-0 libssl3 libstdc++6 libtinfo6 libuuid1 python3.11 python3.11-minimal zlib1g \
	libpython3.11-dev libpython3.11-minimal libpython3.11-stdlib

$(ARM)/python: $(ARM)/tools
	mkdir -p $(ARM)/apt/lists/partial $(ARM)/apt/archives/partial $(ARM)/packages $(ARM)/root $(ARM)/bin
	touch $(ARM)/apt/status
	printf '%s;\n' 'APT::Architecture "arm64"' 'APT::Architectures "arm64"' 'APT::Sandbox::User "root"' \
		'Dir::State "$(ARM)/apt"' 'Dir::State::status "$(ARM)/apt/status"' 'Dir::Cache "$(ARM)/apt"' >$(ARM)/apt.conf
	APT_CONFIG=$(ARM)/apt.conf apt-get --quiet --quiet update
	cd $(ARM)/packages && APT_CONFIG=$(ARM)/apt.conf apt-get --quiet --quiet download $(ARM_PACKAGES)
	for package in $(ARM)/packages/*.deb; do dpkg-deb --extract $$package $(ARM)/root || exit 1; done
	printf '%s\n' '#!/bin/sh' 'exec $(QEMU) "$${ARM_CPU:-max}" -0 "$$0" $(ARM)/root/usr/bin/python3.11 "$$@"' >$@
	chmod +x $@

# The last torch whose wheel for this platform on PyPI has no CUDA in it is 2.10.
ARM_PIP := $(BIN)/pip install --quiet --disable-pip-version-check --target $(ARM)/site --upgrade --only-binary :all: \
	--python-version 3.11 --platform manylinux2014_aarch64 \
	$(foreach libc,2_28 2_27 2_26 2_17,--platform manylinux_$(libc)_aarch64)

$(ARM)/site/installed: constraints.txt .venv/installed
	mkdir -p $(ARM)
	sed -e /^torch==/d -e /^triton==/d constraints.txt >$(ARM)/constraints.txt
	$(ARM_PIP) --no-deps torch==2.10.0
	$(ARM_PIP) -c $(ARM)/constraints.txt filelock fsspec huggingface_hub hypothesis jinja2 networkx numpy pytest \
		pytest-timeout safetensors sympy tokenizers tqdm transformers typing_extensions tyro zstandard
	touch $@

$(ARM)/build/installed: .venv/installed
	$(INSTALL) --target $(ARM)/build --upgrade pybind11 setuptools
	touch $@

$(ARM)/objects/%.o: csrc/%.cpp | $(ARM)/python $(ARM)/build/installed
	@mkdir -p $(@D)
	aarch64-linux-gnu-g++ $(ARM_FLAGS) -isystem $(ARM)/build/pybind11/include -isystem $(ARM)/root/usr/include/python3.11 \
		-idirafter $(ARM)/root/usr/include -c $< -o $@

$(ARM)/here/%.o: csrc/%.cpp
	@mkdir -p $(@D)
	$(CXX) $(ARM_FLAGS) -c $< -o $@

$(ARM)/encoder_grid: $(call objects,objects,grid/encoder_grid $(ARM_ENCODER))
	aarch64-linux-gnu-g++ -static -pthread $^ -o $@

$(ARM)/fuzz_cpu_encoder $(ARM)/fuzz_cpu_blocks: $(ARM)/%: $(ARM)/objects/cpu/fuzz/%.o $(ARM_RUN_TARGET) \
		$(call objects,objects,$(ARM_OPS))
	aarch64-linux-gnu-g++ -static -pthread $^ -o $@

$(ARM)/fuzz_encoder: $(ARM)/objects/tokenizer/fuzz/fuzz_encoder.o $(ARM_RUN_TARGET) \
		$(patsubst csrc/%.cpp,$(ARM)/objects/%.o,$(filter-out %/bindings.cpp,$(wildcard csrc/tokenizer/*.cpp)))
	aarch64-linux-gnu-g++ -static -pthread $^ -o $@

$(ARM)/encoder_grid_here: $(call objects,here,grid/encoder_grid $(ARM_ENCODER))
	$(CXX) -pthread $^ -o $@

# The package beside its extensions.
$(ARM)/lib/electra_fast/_cpu.so: $(patsubst csrc/%.cpp,$(ARM)/objects/%.o,$(wildcard csrc/cpu/*.cpp))
$(ARM)/lib/electra_fast/_tokenizer.so: $(patsubst csrc/%.cpp,$(ARM)/objects/%.o,$(wildcard csrc/tokenizer/*.cpp))
$(ARM)/lib/electra_fast/_cpu.so $(ARM)/lib/electra_fast/_tokenizer.so:
	mkdir -p $(@D)
	aarch64-linux-gnu-g++ -shared -pthread $^ -o $@

ARM_PYTEST = env ARM_CPU=$(1) PYTHONPATH=$(ARM)/lib:$(ARM)/site PYTHONSAFEPATH=1 OMP_NUM_THREADS=1 \
	$(ARM)/python -m pytest -p no:cacheprovider --timeout 3600

test-arm: $(ARM)/encoder_grid $(ARM)/encoder_grid_here $(ARM)/fuzz_cpu_encoder $(ARM)/fuzz_cpu_blocks \
		$(ARM)/fuzz_encoder $(ARM)/lib/electra_fast/_cpu.so $(ARM)/lib/electra_fast/_tokenizer.so $(ARM)/site/installed
	PYTHONPATH=$(ARM)/build $(BIN)/python setup.py --quiet build_py --build-lib $(ARM)/lib
	$(ARM)/encoder_grid_here write $(ARM)/results avx2
	for cpu in $(ARM_CPUS); do \
		$(QEMU) $$cpu $(ARM)/encoder_grid compare $(ARM)/results neon || exit 1; \
		$(QEMU) $$cpu $(ARM)/fuzz_cpu_encoder $(ARM_INPUTS) || exit 1; \
	done
	$(QEMU) max $(ARM)/fuzz_cpu_blocks $(ARM_INPUTS)
	$(QEMU) max $(ARM)/fuzz_encoder $(ARM_INPUTS) csrc/tokenizer/fuzz/corpus/*
	for cpu in $(ARM_TORCH_CPUS); do $(call ARM_PYTEST,$$cpu) tests/model/test_cpu_encoder_int8.py || exit 1; done
	$(call ARM_PYTEST,max) $(ARM_LEFT_OUT) $(ARM_TESTS)

-include $(foreach directory,objects here,$(wildcard $(ARM)/$(directory)/*/*.d $(ARM)/$(directory)/*/*/*.d))
