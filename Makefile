# Two commands: `make demo` and `make test`. Both do all of their own set-up.
#
#   make demo [ARGS=--once]      the main job, before your eyes
#   make test [ARGS="-k name"]   on SQLite, and on PostgreSQL where it answers
#   make bench [ARGS=--quick]    every figure, with its peer beside it
#   make faults                  kill, freeze, wipe, cut and fill up what it runs on, and lose nothing
#   make e2e                     the pages in a real browser; needs Chromium
#   make pictures                the README's pictures, anew
#   make check                   format, lint, types, layers, templates, deploy
#   make format                  what `make check` would complain about
#   make lock                    pin the requirements afresh
#
# PYTHON= names the interpreter, DJANGO= a release (5.2, 6.1) other than the
# one the pinned requirements choose for it; each pair has an environment.

PYTHON ?= python3
DJANGO ?=
ARGS ?=

ifeq ($(PYTHON)$(DJANGO),python3)
VENV ?= .venv
else
VENV ?= .venv-$(notdir $(PYTHON))$(addprefix -django-,$(DJANGO))
endif
BIN := $(VENV)/bin
PIP = $(@D)/bin/python -m pip install --disable-pip-version-check --require-hashes

# What `make check` needs that only a deployment has.
DEPLOYED := HTTPS=1 SECRET_KEY=$$($(BIN)/python -c "import secrets; print(secrets.token_urlsafe(50))")

.PHONY: demo test faults e2e pictures check format lock bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/run.done
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m examples.demo $(ARGS)

test: $(VENV)/dev.done
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests $(ARGS)

# The peers bring requirements of their own, such as an older Django.
bench: $(VENV)-bench/bench.done
	@$(VENV)-bench/bin/python -m bench $(ARGS)

faults: $(VENV)/dev.done
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.faults $(ARGS)

e2e: $(VENV)/dev.done
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.e2e $(ARGS)

pictures: $(VENV)/dev.done
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.e2e -n 0 -k pictures --pictures docs/img

check: $(VENV)/dev.done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy .
	$(BIN)/lint-imports --no-cache
	$(BIN)/djade --check $$(git ls-files '*.html')
	$(BIN)/djlint --lint --quiet $$(git ls-files '*.html')
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(DEPLOYED) $(BIN)/python manage.py check --deploy --fail-level WARNING

format: $(VENV)/dev.done
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/djade $$(git ls-files '*.html')

# uv is needed for this one target only: pip install uv
lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-annotate --no-header pyproject.toml --extra server -o requirements.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-annotate --no-header pyproject.toml --extra server --group dev -o requirements-dev.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-annotate --no-header pyproject.toml --extra server --extra bench -o requirements-bench.txt

clean:
	rm -rf .venv .venv-* var

$(VENV)/made.done $(VENV)-bench/made.done:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Signalpost needs Python 3.11 or later; $(PYTHON) is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.13 ...")'
	@$(PYTHON) -c 'import venv, ensurepip' || { echo 'Python lacks venv or pip; on Debian: apt install python3-venv'; exit 1; }
	@echo "Making $(@D)"
	@$(PYTHON) -m venv $(@D)
	@: > $@

$(VENV)/run.done: requirements.txt $(VENV)/made.done
	@echo "Installing what requirements.txt pins into $(VENV); the first time takes half a minute"
	@$(PIP) -r requirements.txt
	@$(if $(DJANGO),$(BIN)/python -m pip install --disable-pip-version-check 'Django==$(DJANGO).*')
	@: > $@

$(VENV)/dev.done: requirements-dev.txt $(VENV)/made.done
	@echo "Installing what requirements-dev.txt pins into $(VENV); the first time takes a minute"
	@$(PIP) -r requirements-dev.txt
	@$(if $(DJANGO),$(BIN)/python -m pip install --disable-pip-version-check 'Django==$(DJANGO).*')
	@: > $(VENV)/run.done
	@: > $@

$(VENV)-bench/bench.done: requirements-bench.txt $(VENV)-bench/made.done
	@echo "Installing what requirements-bench.txt pins into $(@D); the first time takes half a minute"
	@$(PIP) -r requirements-bench.txt
	@: > $@
