# make demo      a real photo in, a contact sheet, a video and labels out
# make test      the default test suite
# make dev       build the compiled module in place, for work on the sources
# make sanitize  the C++ tests under AddressSanitizer and UBSan
# make lint      ruff, mypy, clang-format (where it is installed)

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: demo test dev sanitize lint clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The stamp follows whatever the wheel is made of.
SOURCES := pyproject.toml CMakeLists.txt $(shell find csrc fastface -type f ! -name '*.so' ! -name '*.pyc' 2>/dev/null | sed 's/ /\\ /g')

$(VENV)/.installed: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet '.[dev]'
	touch $@

# The installed package is tested, not the sources beside the tests.
test: $(VENV)/.installed
	$(BIN)/pytest -q

demo: $(VENV)/.installed
	$(BIN)/fastface demo

dev: $(BIN)/python
	@$(BIN)/python -m pip install --quiet 'pybind11>=2.13' ninja
	@cmake -S . -B build/dev -G Ninja -DFASTFACE_DEV=ON -DCMAKE_BUILD_TYPE=Release \
	  -DPython_EXECUTABLE=$(abspath $(BIN)/python) -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir) \
	  -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) >/dev/null
	@cmake --build build/dev

sanitize:
	@cmake -S . -B build/sanitize -DFASTFACE_SANITIZE=ON -DFASTFACE_DEV=ON >/dev/null
	@cmake --build build/sanitize -j2 -- --no-print-directory
	@cd build/sanitize && ctest --output-on-failure

lint:
	$(BIN)/ruff check .
	$(BIN)/mypy
	@command -v clang-format >/dev/null && find csrc tests/cpp -name '*.h' -o -name '*.cpp' | xargs clang-format --dry-run -Werror || true

clean:
	rm -rf build dist
