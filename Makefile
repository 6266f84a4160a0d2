# Every target makes .venv and installs what it needs: `make demo` or `make test` is all there is to type.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint bench clean

# One environment for everything; rebuilt when the requirements or the C++ sources change.
.venv/installed: pyproject.toml setup.py constraints.txt $(wildcard csrc/*/*.cpp csrc/*/*.h)
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: .venv/installed
	$(BIN)/python -m electra_fast.demo $(if $(DATA),--data $(DATA))

test: .venv/installed
	$(BIN)/python -m pytest -n auto -m "not slow"

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/installed
	$(BIN)/python -m benchmarks.model

clean:
	rm -rf .venv build dist *.egg-info electra_fast/*.so demo
