# `make run` and `make test` install everything that they need; `make help` lists all targets.
PYTHON ?= python3
# One environment per Python, so that `make test PYTHON=python3.12` does not change .venv.
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
COLLECTION ?= auto
SECONDS ?= 60
# The model of `make app`, by default the built-in one, and of `make bench`: a folder that notebook 04
# exported.
bench: MODEL ?= models/resnet34
BIN := $(VENV)/bin
# The Python of Colab, and an environment with its versions.
COLAB_PYTHON ?= python3.13
COLAB_VENV := .venv-colab
# gradio requires pillow<13, but its page works with 13, which fixes vulnerabilities published in
# October 2026. So Pillow is installed afterwards; pip then prints that gradio's bound is violated.
PILLOW := pip install --quiet --disable-pip-version-check --no-deps pillow==13.0.0
# torch prints deprecation warnings when it is imported.
QUIET := -W ignore::FutureWarning

.DEFAULT_GOAL := help
.PHONY: help run test test-fast test-colab lint lab app bench fuzz gpu-check model results check kill
.PHONY: notebooks lock demo-picture site space address clean exported

help:  ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20
	@echo
	@echo '  COLLECTION=gtzan-mini or gtzan downloads real music first (make run COLLECTION=gtzan-mini).'
	@echo '  MELGENRE_DATA=FOLDER uses the music in FOLDER: <genre>/<song>.mp3, or GTZAN.'
	@echo '  PYTHON=python3.12 uses that Python, in an environment of its own.'

run: $(VENV)/.run  ## run all notebooks: executed copies in runs/, exported models in models/
	$(BIN)/python $(QUIET) scripts/run_notebooks.py --collection $(COLLECTION)

# Training uses bf16 if the CPU has it. All tests run without bf16, and some that train a network
# also with it, so that the results of the tests do not depend on the machine. They are few, since
# a CPU without bf16 takes minutes for what takes seconds otherwise.

# One test per core, with one thread each.
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

test: $(VENV)/.test lint  ## check the style and run all tests
	MELGENRE_BF16=0 $(BIN)/python -m pytest -m alone
	MELGENRE_BF16=1 $(PARALLEL) -m bf16
	MELGENRE_BF16=0 $(PARALLEL) -m "not alone"

test-fast: $(VENV)/.test lint  ## check the style and run the fast tests, in some 90 s
	$(PARALLEL) -m "not slow and not browser"

test-colab: $(VENV)/.test $(COLAB_VENV)/.colab  ## run the notebooks with the package versions of Colab
	COLAB_ENVIRONMENT=$(COLAB_VENV) $(BIN)/python -m pytest tests/notebooks/test_colab.py

lint: $(VENV)/.test  ## check the style and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo

# JupyterLab writes outputs into a notebook's file, so it opens copies, which git ignores.
lab: $(VENV)/.run  ## open copies of the notebooks, in lab/, in JupyterLab
	@mkdir -p lab
	@for file in notebooks/*.ipynb; do \
	  test -e lab/$${file##*/} || cp $$file lab/; \
	done
	@echo 'These notebooks are copies in lab/. Change them freely; delete one to get a new copy.'
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) lab

app: exported $(VENV)/.run  ## serve the web page that predicts genres (of another MODEL=FOLDER)
	@$(BIN)/pip install --quiet --disable-pip-version-check -e .[app] -c constraints.txt
	@$(BIN)/$(PILLOW) 2>/dev/null
	$(BIN)/melgenre app$(if $(MODEL), --model $(MODEL))

site: $(VENV)/.site  ## build the documentation pages, which open without a server: site/index.html
	$(BIN)/python $(QUIET) scripts/make_site.py

# Checked before anything is installed: does the model exist?
exported:
	@case '$(MODEL)' in '' | hf:*) ;; *) test -f '$(MODEL)/config.json' || { \
	  echo 'No model in $(MODEL) yet: `make run` trains and exports one. Name another with'; \
	  echo '  make $(MAKECMDGOALS) MODEL=FOLDER'; exit 1; } ;; esac

bench: exported $(VENV)/.run  ## measure speed and memory, compared with alternatives (after make run)
	@-$(BIN)/pip install --quiet --disable-pip-version-check --no-deps audioflux torchaudio captum
	$(BIN)/python -W ignore benchmarks/images.py
	$(BIN)/python -W ignore benchmarks/training.py
	$(BIN)/python -W ignore benchmarks/classifying.py $(MODEL)
	$(BIN)/python -W ignore benchmarks/starting.py $(MODEL)
	$(BIN)/python -W ignore benchmarks/explaining.py $(MODEL)
	$(BIN)/python -W ignore benchmarks/growing.py $(MODEL)
	$(BIN)/python -W ignore benchmarks/balancing.py

fuzz: $(VENV)/.test  ## read damaged files of every kind for 60 s (make fuzz SECONDS=3600)
	$(BIN)/python -W ignore fuzz/fuzz.py --seconds $(SECONDS)

gpu-check: $(VENV)/.test  ## on a GPU: run the tests that need one, record times and accuracies
	$(BIN)/python -m pytest -m gpu
	$(BIN)/python -W ignore benchmarks/gpu.py

model: $(VENV)/.run  ## train the built-in model (needs all of GTZAN)
	$(BIN)/python $(QUIET) scripts/make_model.py

results: $(VENV)/.run  ## train all models under all protocols, 3 seeds each; renew tables and notebook 09
	$(BIN)/python $(QUIET) scripts/make_results.py
	$(BIN)/python $(QUIET) scripts/results_table.py
	$(BIN)/python $(QUIET) scripts/run_notebooks.py --in-place 09_honest_numbers.ipynb

check: $(VENV)/.run  ## compute every committed result again from its predictions
	$(BIN)/python $(QUIET) scripts/check_results.py

kill: $(VENV)/.test  ## kill each operation that writes files 25 times, and check its files
	$(BIN)/python -W ignore fuzz/kill.py --kills 25 --record fuzz/kills.json

notebooks: $(VENV)/.run  ## run the notebooks in place on real music, and renew the tables of results
	$(BIN)/python $(QUIET) scripts/run_notebooks.py --collection $(COLLECTION) --in-place
	$(BIN)/python $(QUIET) scripts/results_table.py

demo-picture: $(VENV)/.test  ## record the moving picture of the README (after make run)
	$(BIN)/python $(QUIET) scripts/make_demo_picture.py

lock: $(VENV)/.run  ## renew requirements.lock: constraints.txt with the hashes of all files
	@$(BIN)/pip install --quiet --disable-pip-version-check uv
	@echo $(lastword $(PILLOW)) > $(VENV)/lock.override
	{ grep '^#' requirements.lock; $(BIN)/uv pip compile --quiet --universal --python-version 3.11.7 \
	  --generate-hashes --no-header --no-annotate --extra app --extra notebooks --extra test \
	  -c constraints.txt --override $(VENV)/lock.override pyproject.toml; } > $(VENV)/lock
	mv $(VENV)/lock requirements.lock

address: $(VENV)/.run  ## write the repository's address everywhere (make address REPO=owner/name)
	$(BIN)/python scripts/set_address.py $(REPO)

space: $(VENV)/.run  ## make space/, a folder to push as a Hugging Face Space: the web page
	$(BIN)/python scripts/make_space.py

clean:  ## remove the environments, runs/, site/ and space/
	rm -rf .venv .venv-* runs site build/site space

$(VENV)/.run: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' || \
	  { echo 'melgenre needs Python 3.11.4 or newer: make $(MAKECMDGOALS) PYTHON=python3.12'; exit 1; }
	@echo 'Installing into $(VENV): torch is large, so this takes some minutes and 6 GB.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	@$(BIN)/$(PILLOW)
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/pip install --quiet --disable-pip-version-check -e .[test] -c constraints.txt
	@$(BIN)/$(PILLOW) 2>/dev/null
	@command -v chromium google-chrome >/dev/null || $(BIN)/playwright install chromium || \
	  echo 'No Chromium, and it cannot be downloaded: the tests that need a browser are skipped.'
	@touch $@

$(VENV)/.site: $(VENV)/.run
	$(BIN)/pip install --quiet --disable-pip-version-check -e .[site] -c constraints.txt
	@$(BIN)/$(PILLOW) 2>/dev/null
	@touch $@

$(COLAB_VENV)/.colab: constraints-colab.txt
	@$(COLAB_PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null || \
	  { echo 'Colab runs Python 3.13: make test-colab COLAB_PYTHON=path/to/python3.13'; exit 1; }
	@echo 'Installing into $(COLAB_VENV): torch is large, so this takes some minutes and 6 GB.'
	$(COLAB_PYTHON) -m venv --clear $(COLAB_VENV)
	$(COLAB_VENV)/bin/pip install --quiet --disable-pip-version-check -r constraints-colab.txt
	@touch $@
