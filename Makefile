# Trader_AI: everything here works inside .venv; nothing is installed elsewhere.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SCRIPTS := scheduler_run.py download_data.py retro_scan.py scan_signals.py train_meta.py \
  calibrate_meta.py tune_thresholds.py maintenance.py dashboard.py analyze_results.py \
  db_inspect.py init_db.py
CODE := core demo benchmarks proof tests $(SCRIPTS)
WORKERS ?= 2

.PHONY: help install dev demo setup run upgrade dashboard test check test-long quick bench evaluate proof \
  format clean screenshots
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) (a few minutes the first time)"
	$(PIP) install -c constraints.txt -r requirements.txt
	@touch $@

# Compiled kernels are cached beside their sources; made once here, not at the first signal.
$(VENV)/.compiled: $(VENV)/.installed $(wildcard core/*.py core/store/*.py demo/*.py)
	@echo "compiling the kernels"
	$(BIN)/python -m demo.compile
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt constraints.txt $(VENV)/.installed
	$(PIP) install -c constraints.txt -r requirements-dev.txt
	@touch $@

install: $(VENV)/.compiled ## make .venv, install, compile the kernels

dev: $(VENV)/.installed-dev ## the same, with what the checks need

demo: install ## generated markets, or DATA=folder; DEMO_SECONDS=n ends by itself
	$(BIN)/python -m demo $(if $(DATA),--data $(DATA)) $(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS))

setup: install ## pairs, equity, risk, Telegram: the first settings, and what they cost
	$(BIN)/python maintenance.py setup

run: install ## the live scheduler on config.yaml
	$(BIN)/python scheduler_run.py

upgrade: install ## after an update: copy, migrate, take the last 30 days' decisions again
	$(BIN)/python maintenance.py upgrade

screenshots: dev ## the README's pictures, of the demo's market
	$(BIN)/python -m demo.screenshots

dashboard: install ## the dashboard on 127.0.0.1
	$(BIN)/python -m streamlit run dashboard.py

test: dev $(VENV)/.compiled ## format, lint, types, layers, tests
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not long" --durations=10

check: test

test-long: dev $(VENV)/.compiled ## the long suites too, each law at its full size
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not small" --durations=20

quick: dev ## tests only, one process
	$(BIN)/python -m pytest -x -m "not long"

bench: dev ## figures, as ratios measured side by side
	$(BIN)/python -m benchmarks

evaluate: CANDLES = $(or $(DATA),$(wildcard ../shared/data/ohlcv))
evaluate: install ## the model on DATA=folder of candles; ASK="--train BTC,ETH --unseen SUI"
	@test -n "$(CANDLES)" || { echo "give the candles: make evaluate DATA=folder" >&2; exit 2; }
	$(BIN)/python maintenance.py evaluate --data "$(CANDLES)" $(ASK)

proof: CANDLES = $(or $(DATA),$(wildcard ../shared/data/ohlcv))
proof: dev $(VENV)/.compiled ## test-long, bench, evaluate: docs/proof.md; ONLY="bench:rate tests/test_risk.py"
	$(BIN)/python -m proof $(if $(CANDLES),--data "$(CANDLES)") $(if $(ONLY),--only $(ONLY))

format: dev ## format and sort imports
	$(BIN)/ruff check --fix --select I $(CODE)
	$(BIN)/ruff format $(CODE)

clean: ## remove the environment and caches, never data or models
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
