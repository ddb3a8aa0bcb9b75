# Every target sets up what it needs: a virtual environment in .venv, with the versions of
# constraints.txt. PYTHON=python3.12 make ... chooses another interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SITE ?= _site
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: help finetune lab docs bench gpu rinna micro claims colab minutes test environment export current lint chapters \
        chapters-in-japanese translate \
        tests site-tests site-built-and-tested browser clean

help:
	@echo "make finetune   fine-tune the micro Japanese GPT-NeoX with QLoRA (about a minute)"
	@echo "make lab        open the chapters in JupyterLab"
	@echo "make docs       build the site, an EPUB and a PDF into $(SITE)"
	@echo "make test       prove that everything is current and works"
	@echo "make bench      measure, and write benchmarks/results"
	@echo "make gpu        run what waits for an NVIDIA GPU, most worth first; BUDGET=480: in 8 minutes"
	@echo "make rinna      train the true 3.6B shape on this CPU (8 GB of disk and memory, half an hour)"
	@echo "make micro      make the micro model again: tokenizer, corpus, weights"
	@echo "make claims     compute the verdicts of chapter 24, and write them as JSON"
	@echo "make colab      rehearse three chapters beside what Colab ships (some gigabytes)"
	@echo "make minutes    count the minutes and the lines of each chapter"

finetune: $(VENV)/.installed
	qlora-nb finetune

lab: $(VENV)/.installed-dev
	jupyter lab nbs

docs: $(VENV)/.installed-docs browser
	python docs/build.py --book

bench: $(VENV)/.installed-dev $(VENV)/.installed-docs
	python benchmarks/micro_run.py
	python benchmarks/finetune_cpu.py
	python benchmarks/micro_controls.py
	python benchmarks/compare_methods.py
	python benchmarks/ablations.py
	python benchmarks/codebooks.py
	python benchmarks/formats.py
	python benchmarks/quantize.py
	python benchmarks/update_rank.py
	python benchmarks/peft_families.py
	python benchmarks/linear.py
	python benchmarks/backends.py
	python benchmarks/encoding.py
	python benchmarks/merging.py
	python benchmarks/checkpointing_cpu.py
	python benchmarks/optimizers_cpu.py
	python benchmarks/cuda_dry.py
	python benchmarks/processes.py
	python benchmarks/site_languages.py

# On a machine with an NVIDIA GPU: its tests, benchmarks and cells, those of most worth first, within
# BUDGET seconds. PYTHON may be one that has torch.
BUDGET ?= 3600
gpu:
	$(or $(wildcard $(VENV)/bin/python),$(PYTHON)) benchmarks/gpu.py --budget $(BUDGET)

# The true shape on a CPU: a checkpoint of 7.2 GB with random weights is made and deleted again.
rinna: $(VENV)/.installed-dev
	python benchmarks/rinna_cpu.py

# The verdicts as JSON, from what their chapter computes.
claims: $(VENV)/.installed-dev
	python docs/claims.py

micro: $(VENV)/.installed
	python -m qlora_nb.micro

# The site's tools need Python 3.11; under 3.10 everything else is tested.
SITE_TESTS := $(shell $(PYTHON) -c 'import sys; print("site-built-and-tested" if sys.version_info >= (3, 11) else "")')
# Where make can, each part's lines are printed together, when it ends, and not among another's.
TOGETHER := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

# Two parts at a time, the site first: at its end one page after another is looked at, beside what
# keeps a second processor busy.
test: current
	@begun=$$(date +%s); \
	$(MAKE) --no-print-directory -j 2 $(TOGETHER) $(SITE_TESTS) lint chapters tests && \
	echo "all of it: $$(($$(date +%s) - begun)) s"

# --- the parts of `make test` ---

environment: $(VENV)/.installed-dev $(VENV)/.installed-docs

# The library, the README and the Colab cells are made from the notebooks; nothing may be stale.
current: environment
	@state() { git status --porcelain && git diff HEAD | git hash-object --stdin; }; \
	before=$$(state) && $(MAKE) --no-print-directory export && \
	if [ "$$before" != "$$(state)" ]; then \
	  git status --short; \
	  echo "not current: run 'make export' and commit what it changes"; exit 1; \
	fi

# Take new and changed texts into the catalogues of docs/ja, where they are translated.
translate: environment
	python docs/catalogue.py extract
	python docs/catalogue.py check

export: environment
	python docs/colab.py
	nbdev_export
	python docs/docstrings.py
	python docs/route.py
	nbdev_clean
	python docs/catalogue.py build
	python docs/readme.py

lint: environment
	python docs/catalogue.py check
	ruff check --quiet nbs qlora_nb docs tests benchmarks setup.py
	mypy --no-error-summary

# As a reader runs them: plain Jupyter, the installed wheel, an empty folder.
chapters: environment
	python docs/rehearse.py $(wildcard nbs/*.ipynb) $(addprefix nbs/ja/,$(IN_JAPANESE))

# The code of the Japanese notebooks is the English one but for what it shows: a few are enough here.
IN_JAPANESE := 00_bits.ipynb 12_optimizers.ipynb

chapters-in-japanese: environment
	python docs/rehearse.py $(wildcard nbs/ja/*.ipynb)

minutes: $(VENV)/.installed-dev
	python docs/route.py --minutes

colab: $(VENV)/.installed-dev
	python docs/rehearse_colab.py

IN_A_BROWSER := $(addprefix tests/test_,site.py playground.py picker.py bit_editor.py)

# Two processes with a thread each are faster than one with two: much of a test is not arithmetic.
# The files of most seconds first, so that no process is idle at the end.
SLOW := $(addprefix tests/test_,resume.py hub.py processes.py faults.py runs.py chat.py cli.py variants.py)

tests: environment
	OMP_NUM_THREADS=1 python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder \
	  $(SLOW) $(filter-out $(SLOW) $(IN_A_BROWSER),$(wildcard tests/test_*.py))

site-tests: environment browser
	python -m pytest -q -n 2 --dist loadfile $(IN_A_BROWSER)

site-built-and-tested: environment
	$(MAKE) --no-print-directory docs
	$(MAKE) --no-print-directory site-tests

browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && apt-get install -y -qq chromium fonts-noto-cjk; \
	else python -m playwright install chromium; fi

clean:
	rm -rf $(SITE) docs/_build build dist *.egg-info

# --- the environment ---

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python setup.py settings.ini constraints.txt
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-%: $(VENV)/.installed
	$(INSTALL) -e '.[$*]'
	@touch $@
