# Everything is set up in .venv by the first target that needs it. Elsewhere than on a machine whose pip already finds a
# CPU build of torch, say where one is: make demo TORCH_ARGS='--index-url https://download.pytorch.org/whl/cpu'
PYTHON ?= python3
TORCH_ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq -c constraints/cpu.txt
PACKAGES := contract attacks defenses storage reports workers service
# -P: the tree's own folders must not pass for top-level packages.
PYTEST := $(BIN)/python -P -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-browser vendor check up bench peers studies trust training overhead busy early docs lock links clean

help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.installed ## Evaluate a small model on a stack of its own and leave the report in demo-report/
	@$(BIN)/sparring demo

test: .venv/.tools ## Run the tests, without the slow ones
	@$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: .venv/.tools ## Run the tests that take minutes
	@$(PYTEST) -m slow

test-browser: .venv/.browser ## Try the pages in Chromium; SPARRING_SHOTS=DIR keeps the screenshots
	@$(PYTEST) tests/browser -m slow

check: .venv/.tools links ## Lint, types and layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@MYPYPATH=.lint:examples:benchmarks:studies $(BIN)/mypy --strict -p sparring -m queue_submit -m endpoint_server -m overhead -m busy -m early -m training -m peers \
		-m oracles -m defenses -m digits -m toys -m page -m believed -p tools
	@PYTHONPATH=.lint $(BIN)/lint-imports
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-actions examples/ci/.github/actions/*/action.yml
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows examples/ci/.github/workflows/*.yml
	@$(BIN)/check-jsonschema --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci examples/ci/.gitlab-ci.yml
	@$(BIN)/check-jsonschema --schemafile docs/schemas/gate.schema.json examples/ci/gate.yaml

up: .venv/.installed ## Run the whole service on this machine until Ctrl-C
	@$(BIN)/sparring up

bench: .venv/.tools .venv-peers/.installed ## Measure speed side by side with the peers (ARGS=--quick: a minute)
	@$(BIN)/python benchmarks/peers.py $(ARGS)

peers: .venv/.tools .venv-peers/.installed ## Compare the accuracy our attacks leave with the peers'
	@$(BIN)/python benchmarks/oracles.py $(ARGS)

studies: .venv/.tools ## Measure what the defenses do on toys and digits, and write docs/studies.md's tables (ARGS='--only labels --seeds 5')
	@$(BIN)/python studies/defenses.py docs/studies.md $(ARGS)

training: .venv/.tools ## Measure what an epoch of each defense costs, beside a plain loop (ARGS='--rows 2000 --rounds 3')
	@$(BIN)/python benchmarks/training.py $(ARGS)

trust: .venv/.tools ## Evaluate models that mask their gradients and honest ones, and write docs/trust.md's tables (ARGS='--rows 100')
	@$(BIN)/python studies/believed.py docs/trust.md $(ARGS)

overhead: .venv/.tools ## Measure the overhead of the service itself
	@$(BIN)/python -P benchmarks/overhead.py

early: .venv/.tools ## Measure what `stop: early` saves
	@$(BIN)/python -P benchmarks/early.py $(ARGS)

busy: .venv/.tools ## Measure how busy an endpoint of 20 ms is kept
	@$(BIN)/python -P benchmarks/busy.py

docs: .venv/.installed ## Write what docs/ says of the API, the schemas, the attacks and the defenses
	@mkdir -p docs/schemas
	@$(BIN)/python -P -m sparring.service.openapi > docs/openapi.json
	@for name in job report gate verdict; do \
		$(BIN)/python -P -m sparring.service.openapi --schema $$name > docs/schemas/$$name.schema.json || exit 1; done
	@$(BIN)/python -P -m sparring.guide docs/attacks.md docs/defenses.md

# A bare environment decides the versions; a build of torch for another machine must not slip in.
lock: ## Refresh constraints/cpu.txt from what the registry offers today
	@set -e; work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	grep '^torch==' constraints/cpu.txt > "$$work/torch.txt"; \
	$(PYTHON) -m venv "$$work/venv"; \
	"$$work/venv/bin/python" -m pip install -qq --upgrade pip; \
	"$$work/venv/bin/python" -m pip install -qq -c "$$work/torch.txt" $(TORCH_ARGS) --no-deps torch; \
	"$$work/venv/bin/python" -m pip install -qq -c "$$work/torch.txt" -e '.[all]' --group dev; \
	sed -n '/^#/p' constraints/cpu.txt > "$$work/cpu.txt"; \
	"$$work/venv/bin/python" -m pip freeze --all --exclude-editable --exclude setuptools | sed 's/+cpu$$//' >> "$$work/cpu.txt"; \
	if grep -i -E '^(nvidia|triton|torchvision)' "$$work/cpu.txt"; then exit 1; fi; \
	cp "$$work/cpu.txt" constraints/cpu.txt

# Static tools read the tree by its installed names: sparring.attacks is attacks/, and client/ is sparring itself.
links:
	@mkdir -p .lint/sparring
	@find .lint -xtype l -delete
	@for entry in $(PACKAGES) $$(find client -mindepth 1 -maxdepth 1 ! -name __pycache__); do \
		ln -sfn "../../$$entry" .lint/sparring/; done

# Another version is written into vendored.json first, and its sha256 after; the test of the pages compares them.
vendor: ## Fetch the scripts and styles of others that the pages use
	@set -e; work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; into=$$PWD/service/web/static; cd "$$work"; \
	$(PYTHON) -c 'import json, sys; [print(*(e[k] for k in ("package", "version", "path", "file"))) for e in json.load(sys.stdin)]' \
		< "$$into/vendored.json" | while read -r package version path file; do \
		tar xzf "$$(npm pack --silent "$$package@$$version")" -O "package/$$path" > "$$into/$$file"; done; \
	cd "$$into" && sha256sum *.min.*

# Debian's python3 may come without ensurepip, but its pip can fill a bare environment.
.venv/bin/python .venv-peers/bin/python: %/bin/python:
	@echo "Setting up $* (a few minutes, once)"
	@$(PYTHON) -m venv $* >/dev/null 2>&1 || { \
		$(PYTHON) -m venv --clear --without-pip $* && $(PYTHON) -m pip --python $@ install -qq pip; }

.venv/.installed: .venv/bin/python pyproject.toml constraints/cpu.txt
	@$(PIP) --upgrade 'pip>=25.1'
	@$(PIP) $(TORCH_ARGS) --no-deps torch
	@$(PIP) -e '.[all]' --group demo
	@touch $@

.venv/.tools: .venv/.installed
	@$(PIP) --group dev
	@$(BIN)/python -m pip download -qq --no-deps --no-binary sarif-om -d .venv/share sarif-om==1.0.4  # the schema of SARIF lies in its sources
	@touch $@

.venv/.browser: .venv/.tools
	@$(PIP) --group browser
	@touch $@

# The libraries we are compared with, and of Sparring what builds the model they attack. See benchmarks/peers.txt.
.venv-peers/.installed: .venv-peers/bin/python benchmarks/peers.txt constraints/cpu.txt pyproject.toml
	@.venv-peers/bin/python -m pip install -qq -c constraints/cpu.txt $(TORCH_ARGS) --no-deps torch
	@.venv-peers/bin/python -m pip install -qq -c constraints/cpu.txt --no-deps -r benchmarks/peers.txt
	@.venv-peers/bin/python -m pip install -qq --no-deps -e .
	@touch $@

clean: ## Remove the environment and everything the tools left
	rm -rf .venv .venv-peers .lint build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis demo-report
	find . -name __pycache__ -prune -exec rm -rf {} +
