# Each target makes .venv by itself when it is missing or older than what it is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# A file's tests share what they train; tests/conftest.py puts the longest files first.
PARALLEL := --numprocesses auto --dist loadfile --no-loadscope-reorder
OLDEST := $(shell sed -n 's/.*transformers>=\([0-9.]*\).*/\1/p' setup.cfg)

.PHONY: help demo test conformance compatibility lint format bench gpu

help:
	@echo "make demo    make sounds, train on them, tag a recording (about a minute on 2 cores once installed)"
	@echo "make test    run the tests"
	@echo "make conformance  run transformers' own common test suites over the models and the extractor"
	@echo "make compatibility  run the tests that depend on transformers with the oldest and the newest that setup.cfg allows"
	@echo "make lint    check style and formatting"
	@echo "make format  fix what can be fixed of it"
	@echo "make bench   measure for hours, on a quiet machine, and write benchmarks/results"
	@echo "make gpu     check and measure on a GPU for half an hour; DATA=FOLDER names the folder that holds esc50"

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,bench]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/python -m demo

test: $(INSTALLED)
	$(BIN)/python -m pytest $(PARALLEL) --durations 10

conformance: $(INSTALLED)
	$(BIN)/python -m tests.conformance.run

compatibility:
	mkdir -p build
	grep -vE '^(transformers|huggingface_hub|tokenizers)=' constraints.txt > build/constraints.txt
	for version in "==$(OLDEST)" "<6"; do \
		$(PYTHON) -m venv --clear build/compatibility || exit 1; \
		build/compatibility/bin/python -m pip install --quiet --constraint build/constraints.txt \
			--editable '.[test]' "transformers$$version" || exit 1; \
		build/compatibility/bin/python -c 'import transformers; print("transformers", transformers.__version__)'; \
		build/compatibility/bin/python -m pytest $(PARALLEL) tests/feature_extraction tests/modeling_fftp || exit 1; \
	done

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.efficiency
	$(BIN)/python -m benchmarks.growth --size small
	$(BIN)/python -m benchmarks.features
	$(BIN)/python -m benchmarks.scan $(if $(MAMBA_SSM),--mamba_ssm_source $(MAMBA_SSM))
	$(BIN)/python -m benchmarks.attention

gpu: $(INSTALLED)
	$(BIN)/python -m benchmarks.gpu $(if $(DATA),--data $(DATA))
