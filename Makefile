PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo demo-joint test test-slow fuzz bench environment clean

demo: environment
	$(BIN)/python demo.py

demo-joint: environment
	$(BIN)/python demo_joint.py

test: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

test-slow: environment
	$(BIN)/python -m pytest -m slow

# 10,000 inputs; for more: make fuzz FUZZ=100000
FUZZ ?= 10000
fuzz: environment
	FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/fuzz

bench: environment
	$(BIN)/python -m benchmarks

environment: $(VENV)/installed

# installs once, and again whenever the requirements change
$(VENV)/installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) runs ckpts results data/demo data/demo_joint
