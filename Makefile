# The commands of this repository; `make help` lists them. Whatever make does, `streamlab` does too.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m streamlab
export PYTHONUTF8 := 1

$(VENV)/.installed: requirements.lock pyproject.toml scripts/install.sh
	@sh scripts/install.sh "$(PYTHON)" "$(VENV)"

.PHONY: env
env: $(VENV)/.installed ## make the environment from the lock

.PHONY: run
run: env ## start the servers, run every lesson, leave notebooks and HTML in runs/
	@$(RUN) run

.PHONY: test
test: env ## run the whole test suite on servers of its own
	@$(RUN) test

.PHONY: soak
soak: env ## run the long proofs too
	@$(RUN) test --soak

.PHONY: lab
lab: env ## open JupyterLab with the servers up
	@$(RUN) lab

.PHONY: bench
bench: env ## run the benchmarks: NAME=... QUICK=1 JSON=FILE
	@$(RUN) bench $(NAME) $(if $(QUICK),--quick) $(if $(JSON),--json "$(JSON)")

.PHONY: up
up: env ## start the servers
	@$(RUN) up

.PHONY: status
status: env ## show what runs
	@$(RUN) status

.PHONY: doctor
doctor: env ## look for what could keep this machine from running the lessons
	@$(RUN) doctor

.PHONY: down
down: ## stop everything
	@if [ -x $(VENV)/bin/python ]; then $(RUN) down; else echo "Nothing is installed here, so nothing of it runs."; fi

.PHONY: lint
lint: env ## ruff, mypy
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

.PHONY: help
help: ## list the commands
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile
