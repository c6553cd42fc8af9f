# The usual commands of the project. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OVERRIDES ?=
STUDIES ?=

# where it is set, no compiled module is kept, and each of many processes compiles PyTorch anew
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup train sample evaluate sweep reproduce tune bench chaos ui server test test-engines lint audit format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## create .venv with pinned versions (needs Python 3.11 or newer)

# --no-compile: a module is compiled when it is first imported, instead of all of them now
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $$($(PYTHON) --version) is too old: Unroll needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
	  --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: setup ## train one model: make train OVERRIDES="model=gru training.epochs=3"
	$(BIN)/unroll $(OVERRIDES)

sample: setup ## generate text from the latest run: make sample OVERRIDES='sampling.samples=4'
	$(BIN)/unroll task=sample run=latest $(OVERRIDES)

evaluate: setup ## score the latest run: make evaluate OVERRIDES="evaluation.protocol=window"
	$(BIN)/unroll task=evaluate run=latest $(OVERRIDES)

sweep: setup ## train each cell at two sizes, in parallel: make sweep OVERRIDES="training.epochs=2"
	$(BIN)/unroll -m hydra/launcher=joblib model=rnn,lstm,gru model.hidden_size=64,128 $(OVERRIDES)

reproduce: setup ## run the studies and write report/index.html: make reproduce FULL=1 STUDIES="cells zipf"
	STUDIES="$(STUDIES)" $(BIN)/python -m experiments.reproduce $(OVERRIDES)

tune: setup ## choose the learning rate of each model for the studies: make tune FULL=1
	$(BIN)/python -m experiments.tune $(OVERRIDES)

bench: setup ## time ours against other ways: make bench ROWS="lab scoring" PEER=FOLDER PENN_TREEBANK=FOLDER
	$(BIN)/python -m experiments.bench $(OVERRIDES)

chaos: setup ## kill trainings and sweeps, stop servers, compare the ends: make chaos KILLS=20 SCENARIOS="runs sweeps server"
	$(BIN)/python -m experiments.chaos

ui: setup ## start the MLflow UI for mlruns/ on http://127.0.0.1:5000
	@echo "runs: http://127.0.0.1:5000/#/experiments/1?workflowType=machine_learning"
	$(BIN)/mlflow ui --host 127.0.0.1 --port 5000 --allowed-hosts "127.0.0.1:5000,localhost:5000" \
	  --cors-allowed-origins "http://127.0.0.1:5000,http://localhost:5000" --x-frame-options DENY \
	  --backend-store-uri sqlite:///$(CURDIR)/mlruns/mlflow.db

server: setup ## start MLflow with PostgreSQL and an S3 store: make server SERVER_FOLDER=server SERVER_PORT=5000
	@$(BIN)/python -c 'import psycopg, boto3, localbucket' 2>/dev/null || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[server]'
	$(BIN)/python -m unroll.tracking.server

test: setup lint ## run the linters, the type checker and the tests
	$(BIN)/python -m pytest

test-engines: setup ## install every extra, and run the tests that need one: make test-engines
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
	  --constraint constraints.txt --editable '.[all,dev]'
	$(BIN)/python -m pytest --numprocesses 0 -m engines

lint: setup ## run ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

audit: setup ## look for known vulnerabilities in the pinned packages
	@found=$$($(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict \
	  --progress-spinner off --timeout 15 2>&1); code=$$?; \
	case "$$code $$found" in \
	  "0 "*"No known vulnerabilities found"* | "1 "*"Found "*" known vulnerabilit"*) \
	    echo "$$found"; exit $$code;; \
	  *) echo "audit: the advisory service could not be asked about every pinned version: $$(echo "$$found" | tail -n 1)" >&2; exit 3;; \
	esac

format: setup ## format the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## delete .venv, caches and the report; runs and outputs are kept
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis report
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
