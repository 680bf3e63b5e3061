# `make run` and `make test` do all their own set-up; `make help` lists the rest.
PYTHON ?= python3
# One environment for each Python, so that `make test PYTHON=python3.12` leaves .venv alone.
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
COLLECTION ?= auto
# What `make bench` asks: a folder that notebook 04 exported.
MODEL ?= models/resnet34
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test lint lab app bench results notebooks address clean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20
	@echo
	@echo '  COLLECTION=gtzan-mini or gtzan downloads real music first (make run COLLECTION=gtzan-mini).'
	@echo '  MELGENRE_DATA=FOLDER uses the music in FOLDER: <genre>/<song>.mp3, or GTZAN.'
	@echo '  PYTHON=python3.12 uses that Python, in an environment of its own.'

run: $(VENV)/.run  ## run every notebook; executed copies go to runs/, exported learners to models/
	$(BIN)/python scripts/run_notebooks.py --collection $(COLLECTION)

test: $(VENV)/.test lint  ## check the style and run the tests
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

lab: $(VENV)/.run  ## open JupyterLab in this environment
	$(BIN)/jupyter lab notebooks

app: $(VENV)/.run  ## show the web page that names the genre of a recording (after make run)
	@$(BIN)/pip install --quiet --disable-pip-version-check -e .[app] -c constraints.txt
	$(BIN)/melgenre app

bench: $(VENV)/.run  ## measure speed and memory beside what else one would run (after make run)
	@-$(BIN)/pip install --quiet --disable-pip-version-check --no-deps audioflux torchaudio captum
	$(BIN)/python -W ignore benchmarks/pictures.py
	$(BIN)/python -W ignore benchmarks/training.py
	$(BIN)/python -W ignore benchmarks/classifying.py $(MODEL)
	$(BIN)/python -W ignore benchmarks/starting.py $(MODEL)
	$(BIN)/python -W ignore benchmarks/explaining.py $(MODEL)
	$(BIN)/python -W ignore benchmarks/growing.py $(MODEL)

results: $(VENV)/.run  ## train every model by every protocol, three seeds each; renew table and notebook 08
	$(BIN)/python scripts/make_results.py
	$(BIN)/python scripts/results_table.py
	$(BIN)/python scripts/run_notebooks.py --in-place 08_honest_numbers.ipynb

notebooks: $(VENV)/.run  ## run the notebooks in place on real music, and renew the README's table
	$(BIN)/python scripts/run_notebooks.py --collection $(COLLECTION) --in-place
	$(BIN)/python scripts/results_table.py

address: $(VENV)/.run  ## write the repository's address into badges: make address REPO=owner/name
	$(BIN)/python scripts/set_address.py $(REPO)

clean:  ## remove the environments and what the notebooks wrote to runs/
	rm -rf .venv .venv-* runs

$(VENV)/.run: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'melgenre needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.12'; exit 1; }
	@echo 'Installing into $(VENV): torch is large, this takes some minutes and 6 GB.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/pip install --quiet --disable-pip-version-check -e .[test] -c constraints.txt
	@command -v chromium google-chrome >/dev/null || $(BIN)/playwright install chromium || \
	  echo 'No Chromium, and none can be fetched: the tests that want a browser will be skipped.'
	@touch $@
