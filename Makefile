# Everything a developer runs. `make help` lists it.

PYTHON  ?= python3
RECIPE  ?= quickstart
DEVICES ?= cpu

# One thread is the fastest for the quickstart's small tensors; larger models take every core.
train: export OMP_NUM_THREADS ?= $(if $(filter quickstart,$(RECIPE)),1,$(shell getconf _NPROCESSORS_ONLN))

.DEFAULT_GOAL := help
.PHONY: help .venv requirements train check format test test-slow docs bench results clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv: .venv/installed ## Install the package and its tools, as constraints.txt pins them
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
# Python compiles a module when it is first imported; pip compiles all of them, which takes as long as the rest.
	.venv/bin/pip install --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@

train: .venv ## Train RECIPE (quickstart) on DEVICES (cpu, one_gpu, several_gpus)
	.venv/bin/accelerate launch --config_file configs/accelerate/$(DEVICES).yaml train.py --config recipes/$(RECIPE).yaml

check: .venv docs ## Lint, check format, types and documentation
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

format: .venv ## Fix what ruff can fix
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

test: .venv ## Run the tests, offline
	.venv/bin/pytest -n 2 --dist loadfile -m 'not slow'

test-slow: .venv ## Run the tests that take minutes: another transformers release, two ranks, real data
	.venv/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder -m slow --durations 10

docs: export NO_MKDOCS_2_WARNING := 1
docs: .venv ## Write the documentation as a site to site/; a broken link is an error
	.venv/bin/mkdocs build --strict --quiet

bench: .venv ## Measure scoring and training beside their peers; wants an hour of a machine that does nothing else
	.venv/bin/pip install --constraint constraints.txt --editable '.[bench]'
	.venv/bin/python benchmarks/scoring.py measure
	.venv/bin/python benchmarks/training_speed.py measure
	.venv/bin/python benchmarks/breakdown.py

results: .venv ## Write docs/results.md from the recorded measurements
	.venv/bin/python benchmarks/results.py

requirements: .venv ## Write requirements/*.txt, the files that the images install, with their hashes
	.venv/bin/pip install --quiet uv
	for name in pyproject.toml:train model_card/space/requirements.txt:serve requirements/build.in:build; do \
		.venv/bin/uv pip compile $${name%:*} --constraint constraints.txt --generate-hashes --no-annotate --quiet \
			--python-version 3.11 --python-platform x86_64-unknown-linux-gnu --custom-compile-command "make requirements" \
			--output-file requirements/$${name#*:}.txt; \
	done

clean: ## Delete what the other targets made, except runs/
	rm -rf .venv build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
