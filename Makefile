# Without make: type the line below a target, for example `python3 tools/make.py book`.
PYTHON ?= python3

.PHONY: book slides pdf test notebooks lab bench mutants env lock clean

book:
	@$(PYTHON) tools/make.py book
pdf:
	@$(PYTHON) tools/make.py pdf
slides:
	@$(PYTHON) tools/make.py slides
test:
	@$(PYTHON) tools/make.py test
notebooks:
	@$(PYTHON) tools/make.py notebooks
lab:
	@$(PYTHON) tools/make.py lab
bench:
	@$(PYTHON) tools/make.py bench
mutants:
	@$(PYTHON) tools/make.py mutants
env:
	@$(PYTHON) tools/make.py env
lock:
	@$(PYTHON) tools/make.py lock
clean:
	@$(PYTHON) tools/make.py clean
