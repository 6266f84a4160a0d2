# Every target makes .venv and installs what it needs: `make demo` or `make test` is all there is to type.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := demo
.PHONY: bundled demo test test-slow test-tf test-recipes test-files test-engines test-arm gpu sanitize fuzz fuzz_cpu fuzz_files \
	random race lint bench resources clean

# One environment, installed anew when the requirements or the C++ sources change. The demo needs only a part of it.
SOURCES := pyproject.toml setup.py constraints.txt $(wildcard csrc/*.h csrc/*/*.cpp csrc/*/*.h csrc/*/*.inc)
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.venv/demo: $(SOURCES)
	@echo "Installing electra_fast, with its C++ compiled here, and transformers to compare with, into .venv ..."
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(INSTALL) -e . transformers
	@touch $@

.venv/installed: $(SOURCES)
	@echo "Installing electra_fast, with its C++ compiled here, and all that its tests use, into .venv ..."
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(INSTALL) -e ".[dev]"
	@touch .venv/demo $@

demo: .venv/demo
	@$(BIN)/python -m electra_fast.cli.demo $(if $(DATA),--data $(DATA))

# One process has all tests of a file: runs, exports and models that a file's tests share are made once.
test: .venv/installed
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not gpu"

# An environment of its own that has all of .venv's packages beneath it.
PACKAGES = $$($(1)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")
define ABOVE_VENV
	@test -x $(1)/bin/pip || $(PYTHON) -m venv $(1)
	@echo "import site; site.addsitedir('$(call PACKAGES,.venv)')" >$(call PACKAGES,$(1))/beneath.pth
endef

# TensorFlow takes 2 GB. h5py is of the version that it asks for.
.venv-tf/installed: .venv/installed
	@echo "Installing TensorFlow into .venv-tf ..."
	$(call ABOVE_VENV,.venv-tf)
	@sed /^h5py/d constraints.txt >.venv-tf/constraints.txt
	@.venv-tf/bin/pip install --quiet --disable-pip-version-check -c .venv-tf/constraints.txt tensorflow-cpu
	@touch $@

test-tf: .venv-tf/installed
	.venv-tf/bin/python -m pytest -n auto --dist loadfile tests/tf tests/test_readme.py -k "tf or tensorflow"

# The libraries of docs/recipes.md: those that take the newest transformers, and those that ask for an older one.
.venv-recipes/installed: .venv/installed
	@echo "Installing the libraries of docs/recipes.md into .venv-recipes ..."
	$(call ABOVE_VENV,.venv-recipes)
	@.venv-recipes/bin/pip install --quiet --disable-pip-version-check -c constraints.txt setfit txtai haystack-ai \
		sentence-transformers-haystack
	@touch $@

.venv-recipes-older/installed: .venv/installed tests/integrations/recipes_older.txt
	@echo "Installing those that ask for an older transformers into .venv-recipes-older ..."
	$(call ABOVE_VENV,.venv-recipes-older)
	@.venv-recipes-older/bin/pip install --quiet --disable-pip-version-check --no-deps -r tests/integrations/recipes_older.txt
	@touch $@

test-recipes: .venv-recipes/installed .venv-recipes-older/installed
	for environment in .venv-recipes .venv-recipes-older; do \
		HF_HUB_OFFLINE=1 HAYSTACK_TELEMETRY_ENABLED=False $$environment/bin/python -m pytest -rs \
			tests/integrations/test_recipe_pages.py || exit 1; done

# KerasHub on torch, without TensorFlow, with all of .venv's packages beneath it, and transformers.js for Node 20.
.venv-files/installed: .venv/installed
	@echo "Installing KerasHub and transformers.js into .venv-files ..."
	$(call ABOVE_VENV,.venv-files)
	@.venv-files/bin/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps \
		keras keras-hub kagglehub kagglesdk namex optree sentencepiece
	@npm install --silent --ignore-scripts --prefix .venv-files/js @huggingface/transformers@4.3.2
	@touch $@

test-files: .venv-files/installed
	KERAS_BACKEND=torch NODE_PATH=$(CURDIR)/.venv-files/js/node_modules .venv-files/bin/python -m pytest \
		tests/conversion/test_keras_hub.py tests/export/test_other_runtimes.py tests/test_readme.py -k "not test_readme or conversion"

# Ray and Spark take 0.8 GB. Spark needs Java 17 or newer.
.venv-engines/installed: .venv/installed
	@echo "Installing Ray and Spark into .venv-engines ..."
	$(call ABOVE_VENV,.venv-engines)
	@.venv-engines/bin/pip install --quiet --disable-pip-version-check -c constraints.txt "ray[data]" "pyspark[sql]"
	@touch $@

test-engines: .venv-engines/installed
	.venv-engines/bin/python -m pytest tests/integrations/test_ray_data.py tests/integrations/test_spark_udf.py
	.venv-engines/bin/python -m pytest tests/test_readme.py -k inference

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow

# Everything that needs a CUDA GPU, in eight minutes: what matters most first. Rows of the benchmarks go to OUT/*.jsonl,
# all output to LOGS/*.log. This target uses the machine's own Python, with torch, transformers and pytest-xdist installed; it makes no
# environment and fetches nothing. Its build comes before this folder on the path, as in `sanitize`. COMMIT names the
# commit for the rows if there is no git.
OUT ?= benchmarks/results
LOGS ?= build/gpu
COMMIT ?= $(shell git rev-parse --short HEAD 2>/dev/null)$(if $(shell git status --porcelain -- . \
	':(exclude)benchmarks/results' 2>/dev/null),-dirty)

gpu:
	@$(PYTHON) -c "import sys, torch; torch.cuda.is_available() or sys.exit('make gpu needs a CUDA GPU, and torch sees none')"
	rm -rf build/gpu
	mkdir -p build/gpu $(OUT) $(LOGS)
	status=0; started=$$(date +%s); \
	$(PYTHON) setup.py --quiet build --build-base build/gpu --build-lib build/gpu/lib >$(LOGS)/build.log 2>&1 \
		|| { tail -n 20 $(LOGS)/build.log; status=1; }; \
	env PYTHONPATH=$(CURDIR)/build/gpu/lib PYTHONSAFEPATH=1 ELECTRA_FAST_COMMIT=$(COMMIT) \
		$(PYTHON) -m electra_fast.benchmarks.gpu_suite $(OUT) $(LOGS) $$started || status=1; \
	exit $$status

# The tests of the C++ on extensions that gcc's sanitizers watch, built with a copy of the package. PYTHONPATH
# puts the copy before the installed package, and PYTHONSAFEPATH keeps this folder's from coming first; processes that
# tests start inherit both. Reports go to files, because pytest captures the rest. Leaks are not looked for: Python itself
# leaks. Left out are a test whose child, forked while threads allocate, hangs in the sanitizer's own allocator, tests
# that limit or measure a process's memory (the sanitizer reserves terabytes), those that ask for a kernel's usual speed, and one of
# errors whose gradient is zero but for rounding: -O1 does not join a product and a sum into one rounding.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -O1 -g
SANITIZED := $(CURDIR)/build/sanitize
RUN_SANITIZED = env PYTHONPATH=$(SANITIZED)/lib PYTHONSAFEPATH=1 \
	ASAN_OPTIONS=detect_leaks=0:malloc_context_size=8:quarantine_size_mb=64:log_path=$(SANITIZED)/report \
	UBSAN_OPTIONS=print_stacktrace=1:log_path=$(SANITIZED)/report \
	LD_PRELOAD="$(foreach lib,asan ubsan,$(shell gcc -print-file-name=lib$(lib).so))" $(BIN)/python

sanitize: .venv/installed
	rm -rf $(SANITIZED)
	$(INSTALL) setuptools pybind11 ninja
	CC=gcc CXX=g++ CFLAGS="$(SANITIZE)" CXXFLAGS="$(SANITIZE)" LDFLAGS="$(SANITIZE)" \
		$(BIN)/python setup.py --quiet build --build-base $(SANITIZED) --build-lib $(SANITIZED)/lib
	$(RUN_SANITIZED) -c "import electra_fast._tokenizer as m; print(m.__file__); assert m.__file__.startswith('$(SANITIZED)/')"
	$(RUN_SANITIZED) -m pytest -n auto tests/tokenizer tests/model/test_cpu_encoder*.py tests/model/test_prepacked.py \
		tests/ops/test_cpu_*.py \
		-m "not slow" -p no:cacheprovider \
		--deselect tests/tokenizer/test_concurrency.py::test_fork_in_the_middle_of_work -k "not no_memory and not exhausted_memory and not ctrl_c and not 24-causal-0.1 and not hold_weights_once"; \
		status=$$?; if cat $(SANITIZED)/report.* 2>/dev/null; then exit 1; fi; exit $$status

# Random texts through the tokenizer's C++, checked by csrc/tokenizer/fuzz. Fuzzing needs clang and its runtime (Debian:
# clang-14 and libclang-rt-14-dev). Comparisons are not traced: tracing takes most of the time, and no text is compared
# with a constant.
FUZZ_CXX ?= $(shell command -v clang++-14 || command -v clang++)
FUZZ_SECONDS ?= 600
FUZZ_FLAGS := -std=c++20 -O2 -g -pthread -Wall -Wextra -fno-sanitize-recover=all -Icsrc
FUZZ_SOURCES := csrc/tokenizer/fuzz/fuzz_encoder.cpp $(filter-out %/bindings.cpp,$(wildcard csrc/tokenizer/*.cpp))

build/fuzz/fuzz_encoder: $(FUZZ_SOURCES) $(wildcard csrc/*.h csrc/tokenizer/*.h csrc/tokenizer/*.inc)
	$(if $(FUZZ_CXX),,$(error fuzzing needs clang with its runtime, found no clang++-14 and no clang++: set FUZZ_CXX))
	mkdir -p build/fuzz/corpus
	$(FUZZ_CXX) -std=c++20 -O2 -g -pthread -Wall -Wextra -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
		-fno-sanitize-coverage=trace-cmp -Icsrc $(FUZZ_SOURCES) -o $@

# Random sizes, batches and weights through the encoder and the ops on a CPU, checked by csrc/cpu/fuzz. The kernels are
# watched for wrong addresses alone: with the checks of undefined behaviour their unrolled loops take gigabytes to compile.
FUZZ_CPU := build/fuzz/fuzz_cpu_encoder build/fuzz/fuzz_cpu_blocks
FUZZ_KERNELS := $(patsubst csrc/cpu/%.cpp,build/fuzz/%.o,$(wildcard csrc/cpu/kernels_*.cpp))
FUZZ_CPU_SOURCES := $(filter-out csrc/cpu/kernels_% csrc/cpu/bindings%,$(wildcard csrc/cpu/*.cpp))

build/fuzz/kernels_%.o: csrc/cpu/kernels_%.cpp $(wildcard csrc/*.h csrc/cpu/*.h csrc/cpu/*.inc)
	mkdir -p build/fuzz
	$(FUZZ_CXX) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link,address -c $< -o $@

$(FUZZ_CPU): build/fuzz/%: csrc/cpu/fuzz/%.cpp $(FUZZ_CPU_SOURCES) $(FUZZ_KERNELS) $(wildcard csrc/*.h csrc/cpu/*.h csrc/cpu/fuzz/*.h)
	mkdir -p build/fuzz
	$(FUZZ_CXX) $(FUZZ_FLAGS) -fsanitize=fuzzer,address,undefined $(filter %.cpp %.o,$^) -o $@

fuzz_cpu: $(FUZZ_CPU)
	for target in $^; do mkdir -p $$target-corpus; $$target -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 \
		-len_control=0 -artifact_prefix=build/fuzz/ $$target-corpus || exit 1; done

# Random models and arguments beside the reference in torch.
RANDOM_SECONDS ?= 1200

random: .venv/installed
	RANDOM_SECONDS=$(RANDOM_SECONDS) $(BIN)/python -m pytest -n 0 -m slow tests/model/test_cpu_encoder_random.py

# The kernels' tests, whose launches are checked for races and wrong addresses, with another order of programs each time.
# The seed is printed, and RACE_SEED=N repeats it. A GPU is hidden: the checker watches Triton's interpreter.
RACE_SEED ?= $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')

race: .venv/installed
	CUDA_VISIBLE_DEVICES= RACE_SEED=$(RACE_SEED) $(BIN)/python -m pytest -n auto --dist loadfile tests/kernels

# Broken tokenizer.json, tokenizer_config.json and their like, each through loading, calls and saving.
fuzz_files: .venv/installed
	RANDOM_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest -n 0 -m slow tests/tokenizer/test_random_files.py

fuzz: fuzz_cpu fuzz_files build/fuzz/fuzz_encoder
	build/fuzz/fuzz_encoder -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -artifact_prefix=build/fuzz/ \
		build/fuzz/corpus csrc/tokenizer/fuzz/corpus

# Makes the small model of the package from the packages that bundled/sources.tsv names: text, vocabulary, shards, seven
# runs of 102 million tokens together on one core, figures. A run that was stopped goes on.
BUNDLED := build/bundled

$(BUNDLED)/text/prose.txt.xz: bundled/corpus.py bundled/readers.py bundled/sources.tsv | .venv/installed
	$(BIN)/python -m bundled.corpus $(@D)

$(BUNDLED)/vocab.txt: $(BUNDLED)/text/prose.txt.xz
	$(BIN)/electra-fast train-vocab --data $< --size 13000 --words 10500 --out $@

$(BUNDLED)/shards/meta.json: $(BUNDLED)/vocab.txt
	rm -rf $(@D)
	$(BIN)/electra-fast prepare --data $(BUNDLED)/text/prose.txt.xz --vocab $< --out $(@D) --mix-seed 0

# The second part begins the discriminator with the generator's weights: from random ones its layers had died. The
# third to fifth are for short texts, which rows of 128 tokens never show, the last two for lines of all lengths (LOG.md).
PRETRAIN_BUNDLED = $(BIN)/electra-fast pretrain --preset tiny --data $(BUNDLED)/shards --vocab $(BUNDLED)/vocab.txt \
	--device cpu --precision bf16 --log-every 100 --checkpoint-every 1000
BEGUN_WITH = --init-generator $(BUNDLED)/$(1)/generator --init-discriminator $(BUNDLED)/$(1)/$(2)

bundled: $(BUNDLED)/shards/meta.json
	$(PRETRAIN_BUNDLED) --out $(BUNDLED)/first --steps 13600 --batch-size 16 --learning-rate 0.0015 \
		--set num_hidden_layers=6 hidden_size=192 num_attention_heads=4 generator_size=1 generator_layers=0.5 \
		seq_length=128 max_position_embeddings=128 whole_word=True temperature=2 temperature_end=1 warmup_steps=1000
	$(PRETRAIN_BUNDLED) --out $(BUNDLED)/second --steps 7800 --batch-size 16 --learning-rate 0.001 --seed 1 \
		$(call BEGUN_WITH,first,generator) \
		--set seq_length=128 whole_word=True temperature=2 temperature_end=1.3 warmup_steps=300
	$(PRETRAIN_BUNDLED) --out $(BUNDLED)/third --steps 3500 --batch-size 64 --learning-rate 0.0006 --seed 2 \
		$(call BEGUN_WITH,second,discriminator) \
		--set seq_length=32 whole_word=True temperature=1.35 temperature_end=1.1 warmup_steps=100
	$(PRETRAIN_BUNDLED) --out $(BUNDLED)/fourth --steps 4300 --batch-size 64 --learning-rate 0.0005 --seed 3 \
		$(call BEGUN_WITH,third,discriminator) \
		--set seq_length=32 whole_word=True temperature=2 temperature_end=1.5 warmup_steps=50
	$(PRETRAIN_BUNDLED) --out $(BUNDLED)/fifth --steps 3000 --batch-size 84 --learning-rate 0.0006 --seed 4 \
		$(call BEGUN_WITH,fourth,discriminator) \
		--set seq_length=24 whole_word=True temperature=1.5 temperature_end=1 warmup_steps=50
	$(PRETRAIN_BUNDLED) --out $(BUNDLED)/sixth --steps 3900 --batch-size 64 --learning-rate 0.001 --seed 5 \
		$(call BEGUN_WITH,fifth,discriminator) \
		--set packing=lines seq_length=48 whole_word=True temperature=1.5 temperature_end=1.3 warmup_steps=200
	$(PRETRAIN_BUNDLED) --out $(BUNDLED)/run --steps 12000 --batch-size 40 --learning-rate 0.001 --seed 6 \
		$(call BEGUN_WITH,sixth,discriminator) \
		--set packing=lines seq_length=128 whole_word=True temperature=1.5 temperature_end=1 warmup_steps=100
	$(BIN)/python -m bundled.measure $(BUNDLED)/text $(BUNDLED)/run $(BUNDLED)/figures.json
	$(BIN)/python -m electra_fast.cli.bundle $(BUNDLED)/run $(BUNDLED)/text/sources.tsv $(BUNDLED)/figures.json

include tests/arm.mk

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/installed
	$(BIN)/electra-fast bench model
	$(BIN)/electra-fast bench model --train --sizes tiny small base
	$(BIN)/electra-fast bench pretrain
	$(BIN)/electra-fast bench tokenizer
	$(BIN)/python -m pytest benchmarks/suite --benchmark-autosave

# Registers, spills and shared memory of every kernel, compiled for GPUs that need not be there; fails if a kernel spills.
# Then launches, bytes and instructions of whole steps; fails if they are more than the page says.
resources: .venv/installed
	$(BIN)/python -m electra_fast.benchmarks.ops.resources --write kernels/README.md
	$(BIN)/python -m electra_fast.benchmarks.ops.steps --against kernels/README.md --write kernels/README.md

clean:
	rm -rf .venv .venv-* build dist *.egg-info electra_fast/*.so demo
