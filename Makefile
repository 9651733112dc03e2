PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.dev-ready
ARGS ?=
JOBS ?= 4
ROWS ?=
SEED ?= 1
PARTS ?=
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' loader_ws_trades/__init__.py)
IMAGE ?= loader-ws-trades:$(VERSION)
EXTRAS ?=
SOURCE ?=
BASE ?=
# Compiled modules are kept, whatever the shell says: the tests start the loader hundreds of times.
unexport PYTHONDONTWRITEBYTECODE
PYTHONS = $(shell sed -n 's/.*Python :: \(3\.[0-9]*\)$$/\1/p' setup.cfg)

.DEFAULT_GOAL := help
.PHONY: help install demo unit test test-pythons chaos fleet kube-test bench bench-compare check format docs constraints kafka image image-test sbom clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

install: $(DEV_READY)  ## Make the virtual environment .venv with everything the other targets need

$(READY): setup.cfg setup.py
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is needed: make PYTHON=...")'
	@echo 'Installing the loader and its sandbox into $(VENV), in about 15 s ...' >&2
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[sandbox]'
	@touch $@

$(DEV_READY): $(READY)
	@echo 'Adding the development tools to $(VENV), about 380 MB ...' >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY)  ## Load from a simulated exchange that loses the connection and skips trades (ARGS='--duration 30s')
	$(BIN)/loader-ws-trades demo $(ARGS)

unit: $(DEV_READY)  ## Run the tests that need neither a broker nor a socket (ARGS='-k name')
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/unit $(ARGS)

test: $(DEV_READY)  ## Run the tests, against Apache Kafka where Java can be had (ARGS='-k name')
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)

test-pythons:  ## Run the tests on every supported Python that this machine has, pyenv's included (ARGS='tests/unit')
	@for minor in $(PYTHONS); do \
		for python in python$$minor "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$minor.*/bin/python$$minor; do \
			"$$python" -c '' 2>/dev/null || continue; \
			echo "Python $$minor: $$python"; \
			$(MAKE) --no-print-directory test PYTHON="$$python" VENV=.cache/python-$$minor || failed="$$failed $$minor"; \
			continue 2; \
		done; \
		echo "Python $$minor: not on this machine"; \
	done; \
	test -z "$$failed" || { echo "The tests failed on Python$$failed"; exit 1; }

chaos: $(DEV_READY)  ## Run the fault matrix on Apache Kafka and print its table (ROWS="13 19" SEED=7)
	$(BIN)/python -m tests.tools.chaos --rows "$(ROWS)" --seed $(SEED)

fleet: $(DEV_READY)  ## Load 20 symbols at once from one set of variables, and report what it takes (ARGS='--symbols 50 --rate 50 --seconds 60 --topic-each')
	$(BIN)/python -m tests.tools.fleet $(ARGS)

kube-test: $(DEV_READY)  ## Run the Jobs of docker/k8s on Kubernetes' own Job controller, without a cluster (ARGS='-k fleet')
	$(BIN)/python -m tests.tools.kube $(ARGS)

bench: $(DEV_READY)  ## Measure the loader next to other ways to do its work, in 18 minutes (QUICK=1 ALONE=1 BEFORE=folder PARTS='saturation latency' BURSTS=180 OUT=file)
	$(BIN)/python -m tests.tools.bench run $(if $(QUICK),--quick) $(if $(ALONE),--alone) $(if $(BEFORE),--before '$(BEFORE)') $(if $(BURSTS),--bursts $(BURSTS)) $(if $(OUT),--out '$(OUT)') $(PARTS)

bench-compare: $(DEV_READY)  ## Show two results of `make bench` side by side (A=file B=file)
	$(BIN)/python -m tests.tools.bench compare '$(A)' '$(B)'

check: $(DEV_READY)  ## Check style, types, the image's recipe and the manifests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml
	$(BIN)/kubernetes-validate --strict --kubernetes-version 1.33 docker/k8s/job.yaml docker/k8s/fleet.yaml docker/k8s/network.yaml
	$(BIN)/kubernetes-validate --strict --kubernetes-version 1.36 docker/k8s/job.yaml docker/k8s/fleet.yaml docker/k8s/network.yaml
	$(BIN)/shellcheck .ci/run

format: $(DEV_READY)  ## Put the code into the agreed style
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(DEV_READY)  ## Make the tables and pictures of the READMEs, .env.example and the dashboard from the code and a run of the demo
	$(BIN)/python -m tests.tools.docs
	$(BIN)/python -m tests.tools.dashboard
	$(BIN)/python -m tests.tools.pictures

constraints: $(DEV_READY)  ## Renew docker/constraints.txt: the newest versions that setup.cfg allows, with their hashes
	@printf 'pip>=25.3\nsetuptools>=78.1.1\n' | CUSTOM_COMPILE_COMMAND='make constraints' $(BIN)/pip-compile --quiet --upgrade --generate-hashes \
		--allow-unsafe --strip-extras --no-annotate --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --extra sandbox --output-file docker/constraints.txt setup.cfg -

kafka: $(DEV_READY)  ## Run Apache Kafka on loopback in the foreground, until Ctrl-C
	@$(BIN)/python -m tests.tools.apache_kafka

image:  ## Build the image with Docker (IMAGE=name:tag EXTRAS=sandbox SOURCE=url BASE=python:...@sha256:...)
	docker build --file docker/Dockerfile --tag '$(IMAGE)' $(if $(BASE),--build-arg BASE='$(BASE)') --build-arg EXTRAS='$(EXTRAS)' --build-arg SOURCE='$(SOURCE)' \
		--build-arg VERSION='$(VERSION)' --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null)" .

image-test: $(DEV_READY)  ## Build the image without Docker, run it restricted, and try the alerts (root, buildah, debootstrap, prometheus)
	$(BIN)/python -m tests.tools.image

sbom: $(DEV_READY)  ## Write the bill of materials of an image that Docker has, as CycloneDX (IMAGE=name:tag > sbom.json)
	@id=$$(docker create '$(IMAGE)') || exit; docker export "$$id" | $(BIN)/python -m tests.tools.sbom; code=$$?; docker rm "$$id" >/dev/null; exit $$code

clean:  ## Remove all that the other targets made, the downloaded broker too
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
