# Each target makes .venv by itself when it is missing or older than what it is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo test conformance lint format bench

help:
	@echo "make demo    train on made sounds and classify one (one to two minutes on 2 cores once installed)"
	@echo "make test    run the tests"
	@echo "make conformance  run transformers' own common test suites over the models and the extractor"
	@echo "make lint    check style and formatting"
	@echo "make format  fix what can be fixed of it"
	@echo "make bench   measure, and write benchmarks/results"

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,bench]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/python -m demo

test: $(INSTALLED)
	$(BIN)/python -m pytest

conformance: $(INSTALLED)
	$(BIN)/python -m tests.conformance.run

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.scan
