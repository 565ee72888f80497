"""The lists of deliberate faults fit the modules that they are meant for."""

import mutants
import pytest

from iclrtut.claims import chapters

EVERY = [(slug, fault) for slug in mutants.chapters() for fault in mutants.faults(slug)]


def test_every_chapter_has_faults_and_tests():
    assert mutants.chapters() == sorted(chapter.slug for chapter in chapters())
    assert all(mutants.tests(slug) for slug in mutants.chapters())


@pytest.mark.parametrize("slug", mutants.chapters())
def test_there_are_enough_faults_and_none_twice(slug):
    faults = mutants.faults(slug)
    assert len(faults) >= 20
    assert len({(f.old, f.new) for f in faults}) == len(faults)
    assert len({f.what for f in faults}) == len(faults)


@pytest.mark.parametrize(
    "slug, fault", EVERY, ids=[f"{slug}: {fault.what}" for slug, fault in EVERY]
)
def test_each_fault_fits_once_and_is_python(slug, fault):
    assert fault.old != fault.new
    _, text = mutants.mutant(slug, fault)
    compile(text, "mutant", "exec")


def test_an_unknown_chapter_is_told():
    with pytest.raises(SystemExit, match="no faults for nowhere"):
        mutants.main(["nowhere"])
