# `make check` answers within minutes; `make check-all` is everything that CI checks on the code; `make help` lists the
# rest.
PYTHON ?= python3
export OMP_NUM_THREADS = 1

.PHONY: help install check check-all tools lint types layers test test-computing test-processes test-fast golden model \
  gpu hosts swarm explore soak soak-sockets fuzz format compose manifests docs

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

install:         ## the package, editable, and the development tools into the current environment
	$(PYTHON) -m pip install -e '.[dev]'

check: tools lint types layers test-fast  ## style, types, imports and every quick test, without real processes: minutes

check-all: tools lint types layers test  ## everything that CI checks: the slow tests and those with real processes too

tools:           ## the package and the development tools, installed where they are missing
	@$(PYTHON) -c 'import blake3, hypothesis, importlinter, mypy, pytest, pytest_timeout, ruff, torch' 2>/dev/null \
	|| $(PYTHON) -m pip install '.[dev]'

lint:            ## style
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types:           ## mypy --strict
	$(PYTHON) -m mypy

layers:          ## import-linter: dependencies point one way
	$(PYTHON) -c 'from importlinter.cli import lint_imports_command as run; run()' --no-logo

ELSEWHERE = not containers and not gpu and not hosts and not slurm and not swarm
QUICK = not sockets and not slow and $(ELSEWHERE)
WORKERS ?= logical
CLUSTERS ?= 2
PYTEST = $(PYTHON) -m pytest --dist loadfile --no-loadscope-reorder --durations=12
test:            ## unit, paper, property, simulation and multi-process tests, on all processors (WORKERS=0: on one)
	@$(MAKE) --no-print-directory -j2 --output-sync=target test-computing test-processes

test-computing:  ## of these the ones that only compute: they give way to those that keep deadlines
	nice -n 10 $(PYTEST) -n $(WORKERS) -m "not sockets and $(ELSEWHERE)" $(OPTIONS)

test-processes:  ## of these the ones with real processes, CLUSTERS at once: they wait for half of their time
	$(PYTEST) -n $(CLUSTERS) -m "sockets and $(ELSEWHERE)" $(OPTIONS)

test-fast:       ## the tests that are neither slow nor start real processes (OPTIONS adds to pytest's)
	$(PYTHON) -m pytest -n $(WORKERS) --dist loadfile -m "$(QUICK)" $(OPTIONS)

golden:          ## every golden run again: what a change of structure did not change, bit for bit
	$(PYTHON) -m tests.golden --check

model:           ## spin searches every run of the model of agreement, and refutes each weakened rule
	$(PYTHON) -m pytest -s tests/model

gpu:             ## what only a GPU can show: six processes on one card compute the same bits
	GPU_REQUIRED=1 $(PYTHON) -m pytest -m gpu tests/gpu

hosts:           ## six owners on three hosts, by hand: network namespaces, so as root, with ip, dnsmasq and iptables
	HOSTS_REQUIRED=1 $(PYTHON) -m pytest -s -m hosts tests/hosts

swarm:           ## six peers on a Docker Swarm of three nodes: as root, with dockerd and the image (docker compose build)
	HOSTS_REQUIRED=1 $(PYTHON) -m pytest -s -m swarm tests/hosts

SEEDS ?= 0..10000
JOBS ?= 2
soak:            ## 10,000 simulated runs under a random adversary, every promise checked after every step
	$(PYTHON) -m tests.simulation.soak --seeds $(SEEDS) --jobs $(JOBS)

MINUTES ?= 30
explore:         ## a systematic adversary: known attacks, every move (n = 4), guided runs, restarts; MINUTES for each
	$(PYTHON) -m tests.adversary --scenarios
	$(PYTHON) -m tests.adversary --n 4 --minutes $(MINUTES) --jobs $(JOBS)
	$(PYTHON) -m tests.adversary --guided --n 4 5 6 --runs 1000000 --minutes $(MINUTES) --jobs $(JOBS)
	$(PYTHON) -m tests.adversary --guided --n 5 6 --runs 1000000 --minutes $(MINUTES) --jobs $(JOBS) --kills

soak-sockets:    ## MINUTES of six real processes under kills, restarts, pauses, partitions, bad links and attacks
	$(PYTHON) -m tests.integration.soak --minutes $(MINUTES)

RUNS ?= 1000000
fuzz:            ## feed RUNS mutated inputs to the decoders and to an honest peer (guided by coverage with atheris)
	$(PYTHON) -m tests.fuzz.frames $(RUNS)

format:          ## rewrite to the house style
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

compose:         ## compose.yaml and the GPU overlay from launcher/containers/emit.py and the table of options
	$(PYTHON) -m btard.launcher plan -n 6 --emit compose > compose.yaml
	$(PYTHON) -m btard.launcher plan -n 6 --emit compose-gpu > deploy/compose.gpu.yaml

manifests:       ## deploy/kubernetes, deploy/slurm and tests/manifests from the emitters and their templates
	$(PYTHON) -m tests.manifests

docs:            ## docs/protocol.md, catalogue.md, metrics.md and the budget in experiments.md from the code
	$(PYTHON) -m docs.generate
