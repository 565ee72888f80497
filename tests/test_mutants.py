"""The list of deliberate faults fits the module it is meant for."""

import mutants
import pytest


def test_there_are_enough_faults_and_none_twice():
    assert len(mutants.FAULTS) >= 20
    assert len({(f.old, f.new) for f in mutants.FAULTS}) == len(mutants.FAULTS)
    assert len({f.what for f in mutants.FAULTS}) == len(mutants.FAULTS)


@pytest.mark.parametrize("fault", mutants.FAULTS, ids=lambda fault: fault.what)
def test_each_fault_fits_once_and_is_python(fault):
    text = mutants.source()
    assert text.count(fault.old) == 1
    compile(text.replace(fault.old, fault.new), "mutant", "exec")
