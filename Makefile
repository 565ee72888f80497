# Without make: type the line below with a verb, for example `python3 tools/make.py book`.
PYTHON ?= python3
VERBS = book slides pdf test test-all notebooks lab bench mutants env lock clean

.PHONY: $(VERBS)
$(VERBS):
	@$(PYTHON) tools/make.py $@
