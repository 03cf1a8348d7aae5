# Requires CPython 3.11 to 3.13 and a package registry. Everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin

# Container images often set this; without bytecode files, each of many processes would compile torch's sources again.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test quick lint format bench gpu-smoke nano english clean

demo: .venv/demo  ## run every stage on twenty spoken dialogues, writing to out/demo
	$(BIN)/echo-targets demo

test: lint  ## run everything that CI runs: lint, types and all tests
	$(BIN)/python -m pytest -n 3 --no-loadscope-reorder --durations 15

quick: .venv/dev  ## run the fast tests
	$(BIN)/python -m pytest -m "not slow"

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/dev  ## compare with other libraries (benchmarks/README.md)
	$(BIN)/python -m benchmarks.job
	$(BIN)/python -m benchmarks.scores
	$(BIN)/python -m benchmarks.tokenize
	$(BIN)/python -m benchmarks.transcribe
	$(BIN)/python -m benchmarks.whisper_parts
	$(BIN)/python -m benchmarks.align
	$(BIN)/python -m benchmarks.units
	$(BIN)/python -m benchmarks.echo
	$(BIN)/python -m benchmarks.write
	$(BIN)/python -m benchmarks.whole
	$(BIN)/python -m benchmarks.workers
	$(BIN)/python -m benchmarks.reading
	$(BIN)/python -m benchmarks.export
	$(BIN)/python -m benchmarks.page
	$(BIN)/python -m benchmarks.runners
	$(BIN)/python -m benchmarks.rehearsal --fraction 0.01

gpu-smoke: .venv/demo  ## run every stage on a GPU and compare the tables with the CPU's
	$(BIN)/python -m benchmarks.gpu_smoke

nano: .venv/demo  ## rebuild the embedded EchoX and unit reader from rules and seeds; takes hours, writes to out/nano
	$(BIN)/python -m echo_targets.jobs.corpora.nano_domain out/nano/domain.jsonl
	$(BIN)/echo-targets run nano-corpus texts=out/nano/domain.jsonl root=out/nano/corpus
	$(BIN)/echo-targets train s2t out/nano/corpus out/nano/one
	$(BIN)/echo-targets train t2c out/nano/corpus out/nano/two --language-model out/nano/one
	$(BIN)/echo-targets run nano-targets texts=out/nano/domain.jsonl root=out/nano/corpus model=out/nano/two
	$(BIN)/echo-targets train echo out/nano/corpus out/nano/two out/nano/echox-nano
	$(BIN)/echo-targets run nano-reader texts=out/nano/domain.jsonl root=out/nano/reader-corpus
	$(BIN)/echo-targets train reader out/nano/reader-corpus out/nano/unit-reader

english: .venv/dev  ## train a T2C and a unit reader on 48 hours of plain English; takes 7 hours, writes to out/english
	mkdir -p out/english && cd out/english && apt-get download wordnet-base bible-kjv bible-kjv-text r-cran-janeaustenr \
	    && for package in *.deb; do dpkg-deb -x $$package unpacked; done
	for seed in 0 1; do \
	    $(BIN)/python -m echo_targets.jobs.corpora.plain_english out/english/unpacked out/english/texts$$seed.jsonl \
	        --seed $$seed $(addprefix --without ,$(wildcard ../shared/speech/manifest.jsonl)) \
	    && $(BIN)/echo-targets run english texts=out/english/texts$$seed.jsonl root=out/english/corpus$$seed || exit; \
	done
	$(BIN)/echo-targets train t2c out/english/corpus0 out/english/t2c-first model.num_layers=6 recipe.steps=2300 \
	    recipe.decay_steps=1000 recipe.batch_tokens=4000 recipe.bfloat16=false recipe.dropout=0
	$(BIN)/echo-targets train t2c out/english/corpus0 out/english/t2c-second start=out/english/t2c-first \
	    model.num_layers=6 recipe.seed=1 recipe.steps=2700 recipe.decay_steps=1500 recipe.batch_tokens=4000 \
	    recipe.bfloat16=false recipe.dropout=0
	$(BIN)/echo-targets train t2c out/english/corpus1 out/english/t2c start=out/english/t2c-second \
	    model.num_layers=6 recipe.seed=2 recipe.steps=4400 recipe.decay_steps=2200 recipe.batch_tokens=4000 \
	    recipe.bfloat16=true recipe.dropout=0
	$(BIN)/echo-targets train reader out/english/corpus0 out/english/reader model.hidden_size=256 model.ffn_size=768 \
	    recipe.steps=3400 recipe.decay_steps=1400 recipe.batch_tokens=4000 recipe.bfloat16=false

clean:
	rm -rf .venv out build *.egg-info

.venv/bin/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv

.venv/%: setup.cfg constraints.txt | .venv/bin/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$*]'
	@# only its weights are used; without its dependencies nothing has to be compiled
	[ $* != dev ] || $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --no-deps resemblyzer
	touch $@
