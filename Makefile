# `make result` runs the demo study, `make test` the tests, `make lint` the style checks.
# Each first sets up the pinned environment in .venv, once.

PYTHON ?= python3.11
# PyTorch's wheels for the CPU; the registry's own come with several GB of CUDA libraries.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

VENV := .venv
INSTALL_LOG := $(VENV)/install.log
BIN := $(VENV)/bin
LOCK := envs/requirements.lock
READY := $(VENV)/.ready
TOOLS := $(VENV)-tools
COMPILE := $(TOOLS)/bin/uv pip compile --generate-hashes --no-annotate --no-header --quiet
EXTRAS := $(filter-out requirements%,$(basename $(notdir $(wildcard envs/*.in))))
SOURCES := scripts tests models envs docs

.PHONY: arm cluster test-slurm result bench profile test test-all fuzz models survey scale schema docs screenshots lint format lock audit help
.DELETE_ON_ERROR:

result: $(READY) ## run the study of config.yaml and print its table
	@$(BIN)/snakemake -c4 results/result.md
	@echo "The page is results/result.md"

bench: $(READY) ## measure what reading, cropping and decoding cost beside inference
	@$(BIN)/snakemake -c all bench

profile: $(READY) ## run the whole study anew and print where its time goes
	@$(BIN)/python scripts/profile_run.py -- $(BIN)/snakemake -c4 --forceall results/result.md

test: $(READY) ## run the unit and workflow tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: $(READY) ## run the slow tests too: large networks of mmpose
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "slow or not slow"

fuzz: $(READY) ## try ten thousand arbitrary files on every parser
	POSEQUANT_FUZZ_EXAMPLES=10000 $(BIN)/python -m pytest -n 2 --dist worksteal -m fuzz

test-slurm: $(VENV)/.extra-cluster ## run the workflow on a Slurm of one node, installed and started here: as root, on Debian
	$(BIN)/python -m pytest -m slurm tests/cluster

cluster: $(VENV)/.extra-cluster ## install what runs jobs on clusters (docs/cluster.md)

arm: $(READY) ## set up ARM, emulated, in .arm (docs/devices.md): Debian's Python for arm64, ncnn and numpy, and qemu
	@$(BIN)/python envs/set_up_arm.py --out .arm

models: $(READY) ## list the networks that a study can name; make models FIND="coco 256x192" those whose line holds both words
	@$(BIN)/python scripts/list_models.py --survey docs/models.md --find $(FIND)

survey: $(READY) ## write docs/models.md: how far each network of models/survey.txt comes
	$(BIN)/python scripts/survey.py --configs $$(grep -v '^#' models/survey.txt) --out docs/models.md

scale: $(READY) ## write docs/scale.md: what planning and jobs cost, and a model of the study of COCO on many cores
	$(BIN)/python scripts/model_scale.py --out docs/scale.md

screenshots: result ## take the pictures of docs/images from the demo's report (needs Chromium)
	$(BIN)/python docs/book/screenshots.py --report results/demo/report.html --out docs/images

schema: $(READY) ## write the schemas of config.yaml and result.json, and docs/configuration.md, from their classes
	$(BIN)/python scripts/describe_config.py --out-schema rules/config.schema.json --out-page docs/configuration.md \
	  --out-result-schema docs/result.schema.json

docs: $(VENV)/.extra-docs ## make the book of docs/, .docs/index.html; broken links are errors
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/book/mkdocs.yml
	@echo "The book is .docs/index.html"

lint: $(READY) ## check style, types and the direction of imports
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy
	PYTHONPATH=scripts $(BIN)/lint-imports --no-cache --no-logo pyproject.toml

format: $(READY) ## bring the sources into shape
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/snakefmt Snakefile rules

# Resolves the packages anew: edit envs/*.in, run this, then the tests. pip chooses the releases (PyTorch's build for
# the CPU is on an index of its own), uv adds the hashes of all their files. Other envs/NAME.in are extras, which keep
# to the releases of requirements.lock.
lock: $(TOOLS)/.ready ## make envs/*.lock and the conda files from envs/*.in
	$(PYTHON) -m venv --clear $(VENV)-lock
	$(VENV)-lock/bin/pip install --retries 1 --extra-index-url $(TORCH_INDEX) --report $(VENV)-lock/report.json --requirement envs/requirements.in
	$(VENV)-lock/bin/pip install --no-deps --no-build-isolation --no-binary xtcocotools --requirement envs/requirements-nodeps.in
	$(VENV)-lock/bin/pip freeze --all --exclude pip --exclude torch | $(COMPILE) --no-deps - > $(VENV)-lock/others
	$(VENV)-lock/bin/python envs/write_lock.py $(VENV)-lock/report.json $(VENV)-lock/others $(LOCK)
	$(VENV)-lock/bin/python envs/write_conda_script.py
	rm -r $(VENV)-lock
	$(foreach extra,$(EXTRAS),$(COMPILE) --constraint $(LOCK) --output-file envs/$(extra).lock envs/$(extra).in > /dev/null &&) true

audit: $(READY) $(TOOLS)/.ready ## look for known vulnerabilities and for changed files in the environment
	$(BIN)/python envs/audit.py --pip-audit $(TOOLS)/bin/pip-audit

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

# pip's own words go to INSTALL_LOG; what fails shows their end.
define step
@echo "$(1)"
@$(2) >> $(INSTALL_LOG) 2>&1 || { tail -n 20 $(INSTALL_LOG); echo "The installation failed; all of it is in $(INSTALL_LOG)"; exit 1; }
endef

# The lines of the lock for the packages that a regular expression names, hashes included.
locked = sed -n -E '/^($(1))==/,/[^\\]$$/p' $(LOCK)

# Exactly what is locked, without the packages' own wishes, some of which contradict each other. A file whose hash is not
# in the lock is refused. --compile: without bytecode every start of Snakemake takes seconds longer.
INSTALL := $(BIN)/pip install --compile --no-deps --require-hashes

# PyTorch is asked for alone: nothing else is looked for on its index. xtcocotools is compiled against the numpy here.
$(READY): $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "Python 3.11 is needed: make PYTHON=/path/to/python3.11")'
	@echo "Setting up $(VENV) (about 2.7 GB, some minutes)"
	@$(PYTHON) -m venv --clear $(VENV)
	$(call step,[1/3] PyTorch,$(call locked,torch) | $(INSTALL) --retries 1 --extra-index-url $(TORCH_INDEX) --requirement /dev/stdin)
	$(call step,[2/3] build tools,$(call locked,setuptools|wheel|cython|numpy) | $(INSTALL) --requirement /dev/stdin)
	$(call step,[3/3] all other packages,$(INSTALL) --no-build-isolation --no-binary xtcocotools --requirement $(LOCK))
	@touch $(READY)

# Installs the extra of envs/NAME.lock into the environment.
$(VENV)/.extra-%: envs/%.lock $(READY)
	$(call step,The packages of $<,$(INSTALL) --requirement $<)
	@touch $@

# What looks after the environment has one of its own.
$(TOOLS)/.ready: envs/tools.lock
	@$(PYTHON) -m venv --clear $(TOOLS)
	@$(TOOLS)/bin/pip install --quiet --no-deps --require-hashes --requirement $<
	@touch $@
