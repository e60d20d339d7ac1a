# On a machine with Python 3.11+, pip and make: `make demo` runs the main job, `make test` the tests. Each sets up what it needs.

PYTHON ?= python3
JOBS   ?= auto
VENV   ?= .venv
BIN    := $(VENV)/bin
ifeq ($(OS),Windows_NT)
BIN    := $(VENV)/Scripts
endif
RUN    := $(BIN)/plimsoll
STAMP  := .make

.PHONY: demo test check fix bench docs support package setup clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   score the example photographs with open_nsfw, and ship its fastest deployment"
	@echo "make test   run the tests"
	@echo "make check  lint, types, layers, tests: what CI runs"
	@echo "make fix    format the code and fix what the linter can fix"
	@echo "make bench  measure against the plain loop; PHOTOS=folder chooses the pictures"
	@echo "make docs   write the generated pages of docs/ anew"
	@echo "make package  build the wheel and the source archive, and try the wheel"
	@echo "make support  real networks and every source on every target; writes docs/support.md"

# Set-up: a virtual environment, remade when the dependencies change.
$(STAMP)/user: pyproject.toml Makefile
	@mkdir -p $(STAMP)
	@echo "== setting up $(VENV) (once) =="
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Plimsoll needs Python 3.11 or newer; say which: make PYTHON=python3.12 …"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fast,openvino,serve]'
	@touch $@

$(STAMP)/dev: $(STAMP)/user
	@echo "== adding what the tests need (once) =="
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[client,fast,grpc,litert,mnn,ncnn,openvino,otel,parquet,serve]' --group dev
	@touch $@

setup: $(STAMP)/dev

demo: $(STAMP)/user
	@echo "== fetching open_nsfw's trained weights (once, 22 MB) =="
	@$(RUN) --quiet zoo fetch open_nsfw
	@echo "== scoring the photographs in examples/photos =="
	@$(RUN) predict open_nsfw examples/photos --format table
	@echo
	@echo "The score is the network's estimate that a photograph is not safe for work: below 0.2 safe, above 0.8 not safe,"
	@echo "a person decides in between."
	@echo
	@echo "== looking for the fastest deployment that answers alike (a minute; what is found is kept in .demo/work) =="
	@echo "The 58 example photographs leave 29 to test: too few for the default budget, so more flips are allowed here."
	@$(RUN) --quiet ship open_nsfw --images examples/photos --out .demo/open_nsfw.plimsoll --force --work .demo/work \
	    --time 40s --calibrators percentile --budget flips=10%,mean_deviation=0.01
	@echo
	@echo "Try your own: $(RUN) predict open_nsfw YOUR_FOLDER; $(RUN) ship open_nsfw --images YOUR_FOLDER --out my.plimsoll"

test: $(STAMP)/dev
	@echo "== fetching open_nsfw's trained weights (once, 22 MB) =="
	@$(RUN) --quiet zoo fetch open_nsfw
	@echo "== running the tests =="
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

check: $(STAMP)/dev
	@echo "== lint =="
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "== types =="
	@$(BIN)/mypy
	@echo "== layers =="
	@$(BIN)/lint-imports --no-logo
	@$(MAKE) --no-print-directory test

fix: $(STAMP)/dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

PHOTOS ?= examples/photos
bench: $(STAMP)/dev
	@$(RUN) --quiet zoo fetch open_nsfw
	@$(BIN)/python benchmarks/predict.py $(PHOTOS)

docs: $(STAMP)/dev
	@$(BIN)/python benchmarks/fast_preprocessing.py examples/photos --write
	@$(BIN)/python tools/pages.py

# Results stay in $(STAMP)/support: what was measured isn't measured again. PLIMSOLL_AGPL=1 adds networks under the AGPL,
# PLIMSOLL_REPOSITORIES=folder those that are read from clones in it (docs/support.md says which).
support: $(STAMP)/dev
	@mkdir -p $(STAMP)/support
	@echo "== real networks × every target of the processor (hours; toolchains and packages that can be fetched) =="
	@PHOTOS=$(PHOTOS) PYTHONPATH=tests $(BIN)/python -m support.measure $(STAMP)/support/networks.jsonl
	@echo "== every source × every target (many minutes; toolchains that are made) =="
	-@PLIMSOLL_SUPPORT=1 $(BIN)/python -m pytest tests/support/test_routes.py -q --junitxml=$(STAMP)/support/routes.xml
	@$(BIN)/python tools/support_table.py --networks $(STAMP)/support/networks.jsonl --routes $(STAMP)/support/routes.xml

# The wheel and the source archive, and the proof that the wheel answers a photograph in an environment of its own.
package: $(STAMP)/dev
	@rm -rf dist build/wheel
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check build
	@$(BIN)/python -m build --outdir dist .
	@$(PYTHON) -m venv build/wheel
	@build/wheel/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	@build/wheel/bin/plimsoll --quiet zoo fetch open_nsfw
	@build/wheel/bin/plimsoll predict open_nsfw examples/photos/astronaut.jpg

clean:
	rm -rf $(VENV) $(STAMP) .demo build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
