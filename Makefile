# make demo: a simulated robot recognises places and names what it senses, over real DDS.   make test: every check CI runs.
# Both create .venv on first use. Python: make demo PYTHON=python3.12
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

ifneq ($(words $(CURDIR)),1)
$(error The path "$(CURDIR)" has a space, which make cannot handle: move the repository)
endif
PYTHON ?= python3
VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
MESSAGES := $(shell find spike_perception_msgs -type f)

# A sourced ROS brings rclpy; without one the wheels of requirements/ros.txt do. What a guard
# variable of those wheels says holds only for the environment that set it.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
unexport PYTHONPATH
ifneq ($(and $(ROS_DISTRO),$(AMENT_PREFIX_PATH)),)
export PYTHONPATH
export AMENT_PREFIX_PATH := $(VENV):$(AMENT_PREFIX_PATH)
export LD_LIBRARY_PATH := $(VENV)/lib:$(LD_LIBRARY_PATH)
VENV_OPTIONS := --system-site-packages
# Extension modules of a ROS release are tied to its numpy, and newer OpenCV wheels to numpy 2.
ROS_NUMPY = $(shell $(PYTHON) -c 'import numpy; print(numpy.__version__)')
REQUIREMENTS = -r <(sed -e '/^numpy/d' -e 's/^opencv.*/opencv-python-headless>=4.10/' \
  requirements/runtime.txt) -c <(echo numpy==$(ROS_NUMPY))
CMAKE_PREFIXES = $(CMAKE_PREFIX_PATH):$(AMENT_PREFIX_PATH)
else
VENV_OPTIONS :=
REQUIREMENTS = -r requirements/ros.txt -r requirements/runtime.txt
CMAKE_PREFIXES = $(VENV)
endif

.PHONY: help install training demo test check format clean

help:
	@echo "make demo    a simulated robot recognises places and names what it senses: out/demo/report.html"
	@echo "make test    linters, types, import rules and all tests"
	@echo "make check   linters, types and import rules only"
	@echo "make training  install what spike-train needs"
	@echo "make clean   remove .venv and what was built"

install: $(VENV)/installed

training: $(VENV)/training

$(VENV)/created:
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON): apt install python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' || { \
	  echo "Python 3.10 to 3.12 is needed, $(PYTHON) is $$($(PYTHON) -V): make PYTHON=python3.12"; \
	  exit 1; }
	@missing=""; for tool in cmake g++ make; do \
	  command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	  $(PYTHON) -c 'import ensurepip' 2>/dev/null || missing="$$missing python3-venv"; \
	  test -e "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" \
	    || missing="$$missing python3-dev"; \
	  test -z "$$missing" || { echo "missing:$$missing; run: apt install$$missing"; exit 1; }
	$(PYTHON) -m venv $(VENV_OPTIONS) $(VENV)
	@# The pip of Python 3.10 takes minutes to resolve what a newer one does in seconds.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip==25.3
	@touch $@

$(VENV)/wheels: $(VENV)/created requirements/ros.txt requirements/runtime.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(REQUIREMENTS)
	@touch $@

$(VENV)/messages: $(VENV)/wheels $(MESSAGES)
	PATH=$(BIN):$$PATH CMAKE_PREFIX_PATH=$(CMAKE_PREFIXES) AMENT_PREFIX_PATH=$(CMAKE_PREFIXES) \
	  cmake -S spike_perception_msgs -B $(VENV)/build_messages -DCMAKE_BUILD_TYPE=Release \
	  -DCMAKE_INSTALL_PREFIX=$(VENV) -DPython3_EXECUTABLE=$(BIN)/python -Wno-dev >$(VENV)/messages.log
	PATH=$(BIN):$$PATH CMAKE_PREFIX_PATH=$(CMAKE_PREFIXES) AMENT_PREFIX_PATH=$(CMAKE_PREFIXES) \
	  cmake --build $(VENV)/build_messages --parallel 2 --target install >>$(VENV)/messages.log
	@touch $@

$(VENV)/installed: $(VENV)/messages setup.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --no-build-isolation --editable .
	@touch $@

$(VENV)/training: $(VENV)/installed requirements/training.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/training.txt
	@touch $@

$(VENV)/development: $(VENV)/training requirements/development.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/development.txt
	@touch $@

demo: install
	$(BIN)/spike-perception demo --out out/demo

check: $(VENV)/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/python -m pytest -n 2 --dist loadgroup

format: $(VENV)/development
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build install log out .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
