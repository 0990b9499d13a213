# make demo and make test are all a newcomer needs: each makes its own environment in .venv.
#
#   make demo TORCH="torch==2.13.0"     another torch: any pip requirement, options included
#   make test VENV=/somewhere           another place for the environment
#   make test EXTRAS=dev,cluster        with Ray and PostgreSQL's driver, for the tests that need them

PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch
EXTRAS ?= dev
# Two threads on a busy laptop are slower than one; workers and pytest set their own parallelism.
export OMP_NUM_THREADS ?= 1

# make takes a blank for the end of a name, a shell for that of a word: hence \, and the quotes below
blank := $(subst ,, )
BIN := $(VENV)/bin
STAMP := $(subst $(blank),\$(blank),$(VENV))/.installed

.PHONY: demo test test-long fuzz test-gpu smoke smoke-here lint format docs release golden gallery clean

demo: $(STAMP)
	"$(BIN)"/archspec demo --out runs/demo --force

test: $(STAMP)
	"$(BIN)"/python -m pytest -n 2 --dist loadfile -m "not long and not gpu"

test-long: $(STAMP)
	"$(BIN)"/python -m pytest -n 2 --dist loadfile -m "not gpu"

# Another seed asks other questions: make fuzz SEED=1 FUZZ_OUT=build/fuzz.json
SEED     ?= 0
FUZZ_OUT ?= benchmarks/results/fuzz.json
fuzz: $(STAMP)
	"$(BIN)"/python -m tests.fuzz --seed $(SEED) --out $(FUZZ_OUT)

# Most of its time is compiling kernels, which several processes share.
test-gpu: $(STAMP)
	"$(BIN)"/python -m pytest -n 8 -m gpu

# The newest torch that pip finds, in an environment of its own, which with CUDA takes some 6 GB and
# so goes again, whatever came of it. PyPI's torch brings its Triton.
smoke:
	@trap 'rm -rf build/smoke' EXIT INT TERM; $(MAKE) smoke-here VENV=build/smoke TORCH=torch || \
		{ echo "make smoke: pip cannot install the newest torch, or a test failed; see above"; exit 1; }

smoke-here: $(STAMP)
	@echo "smoke tests with $$(cat "$(VENV)"/torch.txt)"
	"$(BIN)"/python -m pytest -n 2 --dist loadfile -m "smoke and not long and not gpu"

lint: $(STAMP)
	"$(BIN)"/ruff check .
	"$(BIN)"/ruff format --check .
	"$(BIN)"/mypy

format: $(STAMP)
	"$(BIN)"/ruff check --fix .
	"$(BIN)"/ruff format .

# The site, in build/site; a link or a name that leads nowhere fails.
docs: $(STAMP)
	"$(BIN)"/python -m pip install --quiet -c "$(VENV)"/torch.txt -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 "$(BIN)"/python -m mkdocs build --strict --quiet
	@echo "the site is build/site/index.html"

# Build from a clean source archive, check, install the wheel in an environment of its own and use it
# there, away from the clone. Uploading is left to whoever releases: CONTRIBUTING.md.
release: $(STAMP)
	rm -rf dist build/release build/lib build/bdist.*
	"$(BIN)"/python -m pip install --quiet -c "$(VENV)"/torch.txt -c constraints.txt -e ".[release]"
	"$(BIN)"/python -m build --outdir dist
	"$(BIN)"/python -m twine check --strict dist/*
	$(PYTHON) -m venv build/release
	build/release/bin/python -m pip install --quiet --upgrade pip
	build/release/bin/python -m pip install --quiet $(TORCH)
	build/release/bin/python -m pip install --quiet dist/*.whl
	cd build/release && bin/archspec --version && bin/archspec describe unet >/dev/null && bin/archspec validate demo \
		&& bin/python -c 'import archspec, torch; \
		net = archspec.build("mamba-unet", in_channels=1, num_classes=2, patch_size=(32, 32, 32)); \
		print("a network of the wheel:", tuple(net(torch.zeros(1, 1, 32, 32, 32)).shape))'
	rm -rf build/release
	@echo "dist/ is ready"

golden: $(STAMP)
	ARCHSPEC_GOLDEN=write "$(BIN)"/python -m pytest tests/archspec/costs/test_text.py tests/archspec/scoring/test_page.py \
		tests/search/report/test_golden.py
	for name in segformer3d segresmamba-released; do \
		"$(BIN)"/archspec fidelity $$name > tests/golden/fidelity/$$name.txt || exit 1; done

gallery: $(STAMP)
	ARCHSPEC_GOLDEN=write "$(BIN)"/python -m pytest tests/archspec/drawing/test_gallery.py

clean:
	rm -rf "$(VENV)" runs/demo build dist *.egg-info

# torch first, so that its variant is the user's choice, and then held: the newest torchvision, which
# timm asks for, would bring its own. A torch whose torchvision comes from another
# index leaves one that cannot load its compiled part; timm needs only the Python part, and 0.16.2 is
# the last release in which that part imports alone.
$(STAMP): pyproject.toml setup.py constraints.txt Makefile
	@command -v $(PYTHON) >/dev/null || { echo "python3 not found; set PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "archspec needs Python 3.11 or newer; set PYTHON=python3.11"; exit 1; }
	test -x "$(BIN)"/python || $(PYTHON) -m venv "$(VENV)"
	"$(BIN)"/python -m pip install --quiet --upgrade pip
	"$(BIN)"/python -m pip install --quiet $(TORCH)
	"$(BIN)"/python -c 'from importlib.metadata import version; print("torch==" + version("torch"))' > "$(VENV)"/torch.txt
	PYTHONWARNINGS=ignore "$(BIN)"/python -m pip install --quiet -c "$(VENV)"/torch.txt -c constraints.txt -e ".[$(EXTRAS)]"
	@"$(BIN)"/python -W ignore -c "import torchvision" 2>/dev/null || \
		"$(BIN)"/python -m pip install --quiet --no-deps torchvision==0.16.2
	@touch "$(VENV)"/.installed
