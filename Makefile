# make quickstart   set up .venv and run the first recipe
# make test         run the tests, but for the thorough ones
# make test-all     run all of them, as CI does: inputs by the hundred, real text, peaks of memory, whole sessions too
# make test-fast    run those that start no process, train no model and take no seconds
# make kernels      run the GPU kernels in triton's interpreter, on a CPU (triton takes 1 GB)
# make lint         check style and types
# make install      set up .venv for all of these, and run nothing
# make clean        remove .venv, caches and builds (runs/ is kept)
#
# Any variable can be set on the command line, for example
#   make quickstart TORCH=torch==2.14.1 TORCH_INDEX=https://your-index
PYTHON ?= python3
VENV ?= .venv
# The build of torch to install, and the package index to take it from (empty: pip's own).
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
# A torch for GPUs brings the triton it needs along; this one is for machines without.
TRITON ?= triton==3.9.0
# Further arguments of `tinymem run` and of pytest.
RUN_ARGS ?=
TEST_ARGS ?=

BIN := $(VENV)/bin
# Modules are compiled afterwards, by all cores; pip would use one.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint $(VENV)/constraints.txt

.PHONY: help quickstart test test-all test-fast kernels lint install clean FORCE

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

quickstart: $(VENV)/report.stamp
	$(BIN)/tinymem run recipes/quickstart.yaml $(RUN_ARGS)

PYTEST := $(BIN)/python -m pytest --timeout 600 --numprocesses 2 --dist loadgroup

test: $(VENV)/dev.stamp
	$(PYTEST) -m "not thorough" $(TEST_ARGS)

test-all: $(VENV)/dev.stamp
	$(PYTEST) $(TEST_ARGS)

test-fast: $(VENV)/dev.stamp
	$(PYTEST) -m "not processes and not training and not slow and not thorough" $(TEST_ARGS)

kernels: $(VENV)/dev.stamp
	$(BIN)/python -c 'import triton' 2> /dev/null || $(PIP_INSTALL) '$(TRITON)'
	$(PYTEST) tests/training/kernels tests/mitigation/methods/weight/test_selection.py

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2 tinymem

install: $(VENV)/report.stamp $(VENV)/dev.stamp

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	find tinymem tests -type d -name __pycache__ -prune -exec rm -rf {} +

# Made anew where there is one of another Python, or one that was moved here: its scripts name the place where they were made.
$(VENV)/python.txt: FORCE
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; (3, 11) <= sys.version_info < (3, 14) or sys.exit("TinyMem needs Python 3.11 to 3.13 and $(PYTHON) is " + v + "; try: make PYTHON=python3.11")'
	@wanted="$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])') $(abspath $(VENV))"; \
	base="$$($(PYTHON) -c 'import sys; print(sys._base_executable)')"; \
	if [ ! -x $(BIN)/python ] || [ "$$wanted" != "$$(cat $@ 2> /dev/null)" ]; then \
	    echo "making $(VENV) with $$base"; rm -rf $(VENV); "$$base" -m venv $(VENV) && echo "$$wanted" > $@; \
	fi

# TORCH alone decides the version of torch, so the constraints' line for torch is left out.
$(VENV)/constraints.txt: constraints.txt $(VENV)/python.txt
	@sed '/^torch==/d' constraints.txt > $@

# Rewritten only when TORCH or TORCH_INDEX differs from the last time.
$(VENV)/torch.txt: FORCE $(VENV)/python.txt
	@echo '$(TORCH) $(TORCH_INDEX)' | cmp -s - $@ || echo '$(TORCH) $(TORCH_INDEX)' > $@

$(VENV)/torch.stamp: $(VENV)/torch.txt $(VENV)/constraints.txt
	@echo "installing $(TORCH), the largest part: a CUDA build is several GB, TORCH_INDEX may name a smaller one ..."
	@$(PIP_INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	@touch $@

$(VENV)/%.stamp: pyproject.toml $(VENV)/torch.stamp
	@echo "installing tinymem with what '$*' needs ..."
	@$(PIP_INSTALL) --editable '.[$*]'
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true  # some packages ship files that are no Python
	@touch $@
