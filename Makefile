# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo
ENGINE := docs/results/engine
BENCHMARKS := train decode trie proximal update plan gpu

.PHONY: demo test install lint types unit bench study clean
.DELETE_ON_ERROR:

demo: install  ## simulate a world, train the base, update it with every method, write the report
	rm -rf $(DEMO)
	$(BIN)/peso simulate --workspace $(DEMO)
	$(BIN)/peso run --workspace $(DEMO) --method frozen --config demo
	$(BIN)/peso run --workspace $(DEMO) --method single --config demo
	$(BIN)/peso run --workspace $(DEMO) --method peso --config demo
	$(BIN)/peso run --workspace $(DEMO) --method peso --memory --config demo
	$(BIN)/peso runs --workspace $(DEMO)
	$(BIN)/peso report --workspace $(DEMO)

test: lint types unit  ## what CI runs

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "peso needs Python 3.11 or newer; set PYTHON=..."'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[bench,dev,fsq,scale,text]'
	-$(BIN)/python -m compileall -qq --workers 0 -x py312_intrinsics $(VENV)/lib  # pip would, on one core
	touch $(STAMP)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy --num-workers auto

unit: install  ## a process per core, each with one thread
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

bench: install  ## speed, against the stock libraries; ten minutes to half an hour on two quiet cores
	mkdir -p $(ENGINE)
	for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name --output $(ENGINE)/$$name.json || exit 1; done
	mkdir -p $(ENGINE)/one_thread
	for name in train decode; do \
		OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.$$name --output $(ENGINE)/one_thread/$$name.json || exit 1; done
	$(BIN)/python -m benchmarks.engine_page $(ENGINE)
	$(BIN)/python -m benchmarks.scale_page

study: install  ## quality, on the authors' releases: the tables of docs/results; hours on two cores
	$(BIN)/python -m benchmarks.releases

clean:
	rm -rf $(VENV) $(DEMO) .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
