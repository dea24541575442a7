# make venv | bindings | test | lint | demo | clean        PYTHON=python3.12 and such can be given to each.

PYTHON ?= python3
EXTRAS ?= dev,train,openvino,tensorrt-rtx,postgresql,dashboard
# Test processes; each keeps to one thread.
WORKERS ?= 2

BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: venv bindings test lint demo clean

venv: $(STAMP)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("hwsearch needs Python 3.11 or later; name one, such as: make $(MAKECMDGOALS) PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

# torch comes first and on its own, so that a wheel chosen by hand (CPU-only, say) is kept.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install torch torchvision -c constraints.txt
	$(BIN)/python -m pip install -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

# The Python bindings of TensorRTs that can't be installed without a GPU: tests read them. Without a
# network these tests are skipped, and say so.
bindings: venv
	-$(BIN)/python tests/tensorrt_api/bindings.py

test: lint bindings
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

demo: venv
	$(BIN)/hwsearch demo --workspace demo-workspace

# Keeps the virtual environment; `rm -r .venv` starts over.
clean:
	rm -rf demo-workspace build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find hwsearch tests -name __pycache__ -prune -exec rm -rf {} +
