"""The real pairs of the chapter on meta-transfer, each step against another route."""

import json
from pathlib import Path

import numpy as np
import pytest
import started
import torch
from scipy.special import softmax
from scipy.stats import norm
from sklearn.datasets import load_diabetes

from iclrtut import claims, data
from iclrtut.chapters.meta_transfer import pairs as lab
from iclrtut.chapters.meta_transfer.method import log_dirichlet
from iclrtut.errors import BadRequest, RunFailed

folder, start = started.folder, started.of("meta_transfer")
TREE = Path(__file__).resolve().parents[2]
HERE = (data.folder() / "tuebingen_pairs.npz").is_file()
real = pytest.mark.skipif(not HERE, reason="tuebingen_pairs.npz is not here")


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No data file on this machine."""
    monkeypatch.setenv("ICLRTUT_DATA", str(tmp_path / "none"))


def made(sizes=(40, 61, 200), seed=0, ties=False):
    """Dependent columns of random shapes; with ties, of few values."""
    rng = np.random.default_rng(seed)
    pairs = []
    for n in sizes:
        x = rng.gamma(2, size=n)
        y = np.sin(x) + 0.3 * rng.standard_normal(n)
        pairs.append((np.floor(2 * x), np.round(2 * y)) if ties else (x, y))
    return lab.columns_of(pairs)


def swapped(columns):
    return lab.Columns(columns.second, columns.first, columns.offsets)


def counted(n=3, blocks=(), seed=0, high=9):
    """Random counts [n, *blocks, BINS, BINS]."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, high, (n, *blocks, lab.BINS, lab.BINS))


def additive(n=400, seed=0, shape=np.tanh):
    """A cause, and an effect with independent noise added."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-3, 3, n)
    return x, shape(x) + 0.1 * rng.uniform(-1, 1, n)


# Columns


def test_columns_lie_one_behind_the_other():
    pairs = [(np.arange(20.0), np.arange(20) ** 2), (np.arange(30), np.sqrt(range(30)))]
    found = lab.columns_of(pairs)
    assert found.offsets.tolist() == [0, 20, 50]
    assert found.pair().tolist() == [0] * 20 + [1] * 30
    assert found.place().tolist() == [*range(20), *range(30)]
    for (x, y), (a, b) in zip(found.each(), pairs, strict=True):
        np.testing.assert_array_equal(x, a)
        np.testing.assert_array_equal(y, b)


GOOD = np.arange(20.0)


@pytest.mark.parametrize(
    ("pair", "word"),
    [
        ((GOOD, GOOD[:-1]), "one length"),
        ((GOOD[:19], GOOD[:19]), "at least 20"),
        ((GOOD[:, None], GOOD[:, None]), "shapes"),
        ((GOOD, np.where(GOOD == 3, np.nan, GOOD)), "NaN or infinity"),
        ((np.where(GOOD == 3, np.inf, GOOD), GOOD), "NaN or infinity"),
        ((GOOD, 0 * GOOD + 7), "constant"),
        ((0 * GOOD, GOOD), "constant"),
    ],
)
def test_bad_columns_are_told_with_the_number_of_the_pair(pair, word):
    with pytest.raises(BadRequest, match=f"pair 1 .*{word}"):
        lab.columns_of([(GOOD, GOOD), pair])


def test_no_pairs_are_told():
    with pytest.raises(BadRequest, match="no pairs"):
        lab.columns_of([])


def test_what_counts_as_sorted():
    rng = np.random.default_rng(0)
    rising, free = np.arange(500) // 7, rng.permutation(500)
    days = np.tile(np.arange(250), 2)  # goes back once in 499 steps
    hours = np.tile(np.arange(25), 20)  # once in 25
    pairs = [(rising, free), (free, -rising), (days, free), (hours, free), (free, free)]
    expected = [[1, 0], [0, 1], [1, 0], [0, 0], [0, 0]]
    found = lab.in_order(lab.columns_of(pairs))
    np.testing.assert_array_equal(found, np.array(expected, bool))


# Tables


@pytest.mark.parametrize("ties", [False, True])
def test_bins_by_rank_hold_equal_counts_and_keep_the_order(ties):
    columns = made(ties=ties)
    codes = lab.by_rank(columns.second, columns, np.random.default_rng(1))
    for i, (_, y) in enumerate(columns.each()):
        code = codes[columns.pair() == i]
        counts = np.bincount(code, minlength=lab.BINS)
        assert len(counts) == lab.BINS and np.ptp(counts) <= 1
        for value in y:
            assert code[y < value].max(initial=0) <= code[y == value].min()


def test_ties_are_broken_by_chance_and_nothing_else_is():
    n = 4000
    columns = lab.columns_of([(np.repeat([0.0, 1.0], n // 2), np.arange(n))])
    one, two = (
        lab.by_rank(columns.first, columns, np.random.default_rng(s)) for s in (1, 2)
    )
    place = np.arange(n)
    low = one[: n // 2]
    # Independent of the place: a correlation has a deviation of 1 / sqrt(n).
    assert abs(np.corrcoef(low, place[: n // 2])[0, 1]) < 5 / np.sqrt(n / 2)
    assert 0.7 < (one[: n // 2] != two[: n // 2]).mean() < 0.9  # 4 of 5 by chance
    free = [
        lab.by_rank(columns.second, columns, np.random.default_rng(s)) for s in (1, 2)
    ]
    np.testing.assert_array_equal(*free)


def test_bins_of_equal_width_are_numpys():
    columns = made()
    codes = lab.by_width(columns.first, columns)
    for i, (x, _) in enumerate(columns.each()):
        counts = np.bincount(codes[columns.pair() == i], minlength=lab.BINS)
        np.testing.assert_array_equal(counts, np.histogram(x, lab.BINS)[0])


def test_parts_are_runs_of_rows_or_shuffled():
    columns = made()
    runs = lab.parts_of(columns, 5)
    mixed = lab.parts_of(columns, 5, np.random.default_rng(0))
    for i, n in enumerate(np.diff(columns.offsets)):
        here = columns.pair() == i
        pieces = np.array_split(runs[here], np.flatnonzero(np.diff(runs[here])) + 1)
        assert [piece[0] for piece in pieces] == [0, 1, 2, 3, 4]
        assert {len(piece) for piece in pieces} <= {n // 5, -(-n // 5)}
        np.testing.assert_array_equal(np.sort(mixed[here]), runs[here])
        assert (mixed[here] != runs[here]).mean() > 0.5


def test_tables_count_rows():
    columns, n = made(), 3
    codes = lab.ranked(columns, np.random.default_rng(0))
    part = lab.parts_of(columns, n)
    expected = np.zeros((3, n, lab.BINS, lab.BINS), int)
    for cell in zip(columns.pair(), part, *codes, strict=True):
        expected[cell] += 1
    np.testing.assert_array_equal(lab.tables(columns, codes, part, n), expected)


def test_half_a_row_is_added_to_each_cell():
    counts = counted()
    found = lab.filled(counts).exp()
    expected = (counts + 0.5) / (counts.sum((1, 2)) + 50)[:, None, None]
    np.testing.assert_allclose(found, expected, rtol=1e-13)


# Adaptation, against a transcription with one table and one learner at a time


def plain_curve(p, star, steps):
    """KL of one learner, rows to columns, after each of the steps."""
    u, v = np.log(p.sum(1)), np.log(p)
    found = []
    for step in range(steps + 1):
        here = softmax(u)[:, None] * softmax(v, axis=1)
        found.append((star * np.log(star / here)).sum())
        if step < steps:
            u = u - lab.RATE * (softmax(u) - star.sum(1))
            v = v - lab.RATE * (star.sum(1)[:, None] * softmax(v, axis=1) - star)
    return np.array(found)


def plain_lead(p, star, steps):
    return (plain_curve(p.T, star.T, steps) - plain_curve(p, star, steps)).sum()


def plain_filled(counts):
    return (counts + 0.5) / (counts + 0.5).sum()


def test_adaptation_from_block_to_block_is_the_transcription():
    counts, steps = counted(blocks=(5,)), 7
    lead, drift = lab.across_blocks(counts, steps)
    for each, ahead, drifted in zip(counts, lead, drift, strict=True):
        expected = moved = 0
        for i in range(5):
            p = plain_filled(sum(each[j] for j in range(5) if j != i))
            q = plain_filled(each[i])
            expected += plain_lead(p, q, steps)
            for axis, sign in ((1, 1), (0, -1)):
                old, new = p.sum(axis), q.sum(axis)
                moved += sign * (new * np.log(new / old)).sum()
        assert ahead == pytest.approx(expected, rel=1e-10)
        assert drifted == pytest.approx(moved, rel=1e-10)


@pytest.mark.parametrize("chunk", [100, 10**6])
def test_selection_is_the_transcription_with_all_of_both_learners(chunk, monkeypatch):
    monkeypatch.setattr(lab, "CHUNK", chunk)
    counts, steps, M = counted(), 6, 4
    laws = log_dirichlet((3, M, lab.BINS), 1.0, torch.Generator().manual_seed(0))
    found = lab.under_selection(counts, laws, steps)
    for i in range(3):
        p, expected = plain_filled(counts[i]), [0, 0]
        for law in laws[i].exp().numpy():
            on_first = p / p.sum(1, keepdims=True) * law[:, None]
            on_second = p / p.sum(0) * law
            expected[0] += plain_lead(p, on_first, steps)
            expected[1] += plain_lead(p, on_second, steps)
        np.testing.assert_allclose([side[i] for side in found], expected, rtol=1e-10)
        assert found[0][i] > 0 > found[1][i]  # each law favours its own column


def test_what_is_left_over_changes_sign_with_the_table_and_is_0_where_symmetric():
    counts = counted(4)
    counts[3] = counts[3] + counts[3].T
    laws = log_dirichlet((4, 5, lab.BINS), 1.0, torch.Generator().manual_seed(1))
    gaps = lab.under_selection(counts, laws, 10)
    rest = lab.left_over(gaps)
    turned = lab.left_over(lab.under_selection(counts.transpose(0, 2, 1), laws, 10))
    np.testing.assert_allclose(rest, -turned, atol=1e-11)
    assert rest[3] == 0 and (rest[:3] != 0).all()
    assert (np.abs(rest) < np.abs(gaps).sum(0) / 5).all()


def shifting(site, n=3000, seed=0):
    """Five blocks of a curved mechanism with independent shifts of one marginal."""
    rng = np.random.default_rng(seed)
    centres = np.repeat([-1.0, 0.5, 0.0, -0.5, 1.0], n // 5)
    x = rng.standard_normal(n) + centres
    y = x + np.exp(x) / 4 + 0.5 * rng.standard_normal(n)
    return (x, y) if site == "cause" else (y, x)


def test_blocks_find_a_cause_that_shifts_and_are_wrong_where_the_effect_does():
    columns = lab.columns_of([shifting("cause"), shifting("effect")])
    rng = np.random.default_rng(0)
    codes, part = lab.ranked(columns, rng), lab.parts_of(columns, 5)
    lead, drift = lab.across_blocks(lab.tables(columns, codes, part, 5), 20)
    assert lead[0] > 0 > lead[1]
    assert drift[0] > 0 > drift[1]


# Other methods


@pytest.mark.parametrize("width", [1.0, 3.0])
def test_entropy_of_known_laws(width):
    n = 20_000
    rng = np.random.default_rng(0)
    # One spacing's log has a variance of pi^2 / 6 about the mean.
    close = 6 * np.pi / np.sqrt(6 * n)
    found = lab.entropy(width * rng.random(n))
    assert found == pytest.approx(np.log(width), abs=close)
    found = lab.entropy(width * rng.standard_normal(n))
    assert found == pytest.approx(norm(scale=width).entropy(), abs=close)


def test_entropy_counts_each_value_once():
    x = np.random.default_rng(0).random(50)
    assert lab.entropy(np.repeat(x, 3)) == pytest.approx(lab.entropy(x), rel=1e-12)


def test_entropies_find_a_deterministic_cause_and_know_no_units():
    x = np.random.default_rng(0).random(500)
    columns = lab.columns_of([(x, x**3), (5 - 7 * x, 100 * np.exp(4 * x))])
    assert (lab.igci(columns) > 0).all()
    plain = lab.columns_of([(x, x**3), (-x, np.exp(4 * x))])
    np.testing.assert_allclose(lab.igci(columns), lab.igci(plain), rtol=1e-8)


def test_regression_error_is_least_squares_on_powers():
    columns = made()
    expected = []
    for pair in columns.each():
        x, y = ((c - c.min()) / (c.max() - c.min()) for c in pair)
        errors = []
        for given, told in ((y, x), (x, y)):
            powers = np.stack([given**k for k in range(4)], 1)
            fit = powers @ np.linalg.lstsq(powers, told, rcond=None)[0]
            errors.append(((told - fit) ** 2).mean())
        expected.append(errors[0] - errors[1])
    np.testing.assert_allclose(lab.regression_error(columns), expected, rtol=1e-8)


def test_regression_on_two_values_is_the_mean_of_each():
    x, y = np.repeat([0.0, 1.0], 10), np.arange(20.0)
    assert lab._cubic_error(x, y) == pytest.approx(y[:10].var())


def test_hsic_is_the_trace():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(30), rng.integers(0, 4, 30).astype(float)

    def kernel(z):
        squares = [[(a - b) ** 2 for a in z] for b in z]
        apart = [s for row in squares for s in row if s > 0]
        return np.exp(-np.array(squares) / np.median(apart))

    H = np.eye(30) - 1 / 30
    expected = np.trace(kernel(x) @ H @ kernel(y) @ H) / 30**2
    assert lab.hsic(x, y) == pytest.approx(expected, rel=1e-10)
    assert lab.hsic(x, 0 * y) == pytest.approx(0, abs=1e-15)


def test_the_residual_is_that_of_kernel_ridge_regression():
    x, y = additive(60)
    kernel = np.exp(-((x[:, None] - x) ** 2))
    residual = y - kernel @ np.linalg.solve(kernel + 0.1 * np.eye(60), y)
    assert lab._dependence(x, y) == pytest.approx(lab.hsic(x, residual), rel=1e-8)


@pytest.mark.parametrize("shape", [np.tanh, np.square, lambda x: x**3])
def test_a_pair_with_additive_noise_is_found_and_its_swap_too(shape):
    for seed in range(3):
        x, y = additive(seed=seed, shape=shape)
        columns = lab.columns_of([(x, y), (y, x)])
        found = lab.additive_noise(columns, 250, np.random.default_rng(0))
        assert found[0] > 0 > found[1]


def test_additive_noise_takes_so_many_rows():
    x, y = additive(40)
    far = np.where(np.arange(4000) < 40, np.tile(x, 100), 50.0)
    columns = lab.columns_of([(far, np.tile(y, 100))])

    class First:
        def permutation(self, n):
            return np.arange(n)

    alone = lab.additive_noise(lab.columns_of([(x, y)]), 40, First())
    assert lab.additive_noise(columns, 40, First()) == pytest.approx(alone, rel=1e-12)


# Guessing


def test_every_method_but_the_coin_turns_with_the_columns():
    columns, run = made((60, 90, 150)), start()
    one, _ = lab.guess(run, columns)
    two, _ = lab.guess(run, swapped(columns))
    assert list(one) == list(lab.METHODS)
    for key in lab.METHODS:
        same = 1 if key == "coin" else -1
        np.testing.assert_allclose(one[key], same * two[key], rtol=1e-6, atol=1e-12)
        assert (one[key] != 0).all()


def test_ties_alone_move_selection_but_not_a_method_that_has_no_ties():
    columns = made((60, 90, 150), ties=True)
    one, two = (lab.guess(start(seed=s), columns)[0] for s in (0, 1))
    for key in ("selection", "blocks", "shuffled", "noise"):
        assert (one[key] != two[key]).all()
    for key in ("igci", "regression"):
        np.testing.assert_array_equal(one[key], two[key])


def test_bins_of_equal_width_follow_the_entropies():
    rng = np.random.default_rng(0)
    flat, heavy = rng.random(500), rng.exponential(size=500) ** 2
    pairs = [(flat, heavy), (heavy, flat)] * 2
    scores, reasons = lab.guess(start(marginals=20), lab.columns_of(pairs))
    assert (np.sign(scores["widths"]) == [-1, 1, -1, 1]).all()
    assert reasons["entropies"] == 1


def test_reasons_are_shares():
    columns = made((60, 90, 150, 80, 200))
    _, reasons = lab.guess(start(marginals=20, pair_steps=20), columns)
    assert list(reasons) == ["rest", "flips", "entropies", "drifts"]
    assert all(0 <= share <= 1 for share in reasons.values())
    assert reasons["rest"] < 0.05


# The verdict


def test_the_bootstrap_is_the_loop_over_data_sets():
    rng = np.random.default_rng(0)
    right, weight = rng.integers(0, 3, 30) / 2, rng.random(30)
    source = rng.integers(0, 6, 30) * 7
    found = lab.accuracy(right, weight, source, 50, np.random.default_rng(5))
    known, means = np.unique(source), []
    for drawn in np.random.default_rng(5).multinomial(6, [1 / 6] * 6, 50):
        sets = np.repeat(known, drawn)
        pairs = np.concatenate([np.flatnonzero(source == s) for s in sets])
        means.append((right * weight)[pairs].sum() / weight[pairs].sum())
    assert found.mean == pytest.approx((right * weight).sum() / weight.sum())
    assert found[1:] == pytest.approx(np.quantile(means, [0.025, 0.975]).tolist())


def test_pairs_of_one_data_set_stay_together():
    rng = np.random.default_rng(0)
    right, weight = np.tile([1.0, 0.0], 20), np.ones(40)
    alike = lab.accuracy(right, weight, np.repeat([3, 8], 20), 500, rng)
    assert alike == (0.5, 0.5, 0.5)
    apart = lab.accuracy(right, weight, np.tile([3, 8], 20), 500, rng)
    assert apart == (0.5, 0.0, 1.0)


def test_a_coins_interval_covers_one_half():
    rng = np.random.default_rng(0)
    source, weight = np.arange(99) % 35, np.ones(99)
    covered = 0
    for _ in range(400):
        tossed = rng.integers(0, 2, 99).astype(float)
        _, low, high = lab.accuracy(tossed, weight, source, 400, rng)
        covered += low <= 0.5 <= high
    # 95 % for many sets; 35 of unequal size lose a little. One deviation is 1.1 %.
    assert 0.90 < covered / 400 < 0.985


def test_measured_are_the_claims_that_the_chapter_declares(capsys):
    run = start()
    found = lab.measure_pairs(run)
    declared = [c.id for c in run.chapter.claims if c.id.startswith("pairs_")]
    assert set(found.claims) == set(declared)
    assert list(found.methods) == list(lab.METHODS)
    for id, numbers in found.claims.items():
        assert numbers["value"] == numbers["low"] <= numbers["accuracy"]
        assert numbers["accuracy"] <= numbers["high"]
        assert numbers["pairs"] == found.pairs >= numbers["judged"]
        run.claim(id, **numbers)
    for key in ("selection", "blocks", "shuffled"):
        assert found.claims[f"pairs_{key}"]["low"] == found.methods[key].everywhere.low
    assert (
        found.claims["pairs_unsorted"]["accuracy"]
        == found.methods["blocks"].unsorted.mean
    )
    ahead = [found.methods[key].everywhere.mean for key in ("blocks", "drift")]
    drift = found.claims["pairs_drift"]
    assert drift["accuracy"] == pytest.approx(ahead[0] - ahead[1])
    rows = found.table().rows
    assert [row[0] for row in rows] == list(lab.METHODS.values())
    assert all(len(row) == len(found.table().head) for row in rows)


def test_a_seed_says_the_same_twice_and_another_does_not():
    one, two, other = (lab.measure_pairs(start(seed=s)) for s in (3, 3, 4))
    assert one.claims == two.claims and one.reasons == two.reasons
    assert one.claims != other.claims


def test_the_example_is_the_first_pair_from_cause_to_effect():
    for seed in range(3):
        run = start(seed=seed)
        found = lab.measure_pairs(run).example
        pairs = lab.load_pairs(run)
        x, y = pairs.columns.each()[0][:: int(pairs.side[0])]
        np.testing.assert_array_equal(found.cause, x)
        np.testing.assert_array_equal(found.effect, y)
        assert found.names == (("Altitude", "Temperature") if HERE else ("age", "bmi"))
        assert len(found.causal) == len(found.anticausal) == run.settings.pair_steps + 1
        assert found.causal[0] == pytest.approx(found.anticausal[0], rel=1e-12)
        assert (np.diff(found.causal) < 0).all() and (
            np.diff(found.anticausal) < 0
        ).all()


# The truth stays with the judge


def test_columns_are_swapped_by_chance_and_the_judge_knows(nowhere):
    sides = []
    effect = dict(stand_ins())
    for seed in range(100, 140):
        pairs = lab.load_pairs(start(seed=seed))
        sides.append(pairs.side)
        for side, names, columns in zip(
            pairs.side, pairs.names, pairs.columns.each(), strict=True
        ):
            cause, other = names[::side], columns[::side]
            assert cause[0] == "age" and np.ptp(other[0]) == 60
            np.testing.assert_array_equal(other[1], effect[cause[1]])
    # 360 fair coins: a deviation of 1 / sqrt(360).
    assert abs(np.mean(sides)) < 4 / np.sqrt(360)
    assert (
        len({tuple(side) for side in sides}) > 30
    )  # of 512; chance repeats one or two


def stand_ins():
    """The names and effects of the stand-ins, by their places in scikit-learn's set."""
    found = load_diabetes(scaled=False)
    names = ["bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
    effects = zip(names, found.data[:, 2:].T, strict=True)
    return [*effects, ("progression", found.target)]


def test_methods_do_not_know_which_column_was_the_cause(nowhere, monkeypatch):
    known = lab._diabetes()
    right = lab.measure_pairs(start(seed=1))
    turned = known._replace(columns=swapped(known.columns))
    monkeypatch.setattr(lab, "_diabetes", lambda: turned)
    wrong = lab.measure_pairs(start(seed=1))
    for key in ("igci", "regression", "noise", "widths"):
        total = right.methods[key].right + wrong.methods[key].right
        np.testing.assert_array_equal(total, 1)


def test_guesses_need_columns_only(nowhere):
    run = start(seed=2)
    pairs = lab.load_pairs(run)
    assert set(pairs.columns._asdict()) == {"first", "second", "offsets"}
    before = [column.copy() for column in pairs.columns]
    lab.guess(run, pairs.columns)
    for old, new in zip(before, pairs.columns, strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_judge_counts_weights_sides_and_silence(nowhere, monkeypatch):
    pairs = lab.load_pairs(start())
    scores = dict.fromkeys(lab.METHODS, pairs.side.astype(float))
    scores["selection"] = -pairs.side
    scores["shuffled"] = 0.0 * pairs.side
    scores["coin"] = np.where(np.arange(9) == 0, -1, 1) * pairs.side
    weighted = pairs._replace(weight=np.array([3.0, *[1.0] * 8]))
    monkeypatch.setattr(lab, "load_pairs", lambda run: weighted)
    monkeypatch.setattr(lab, "guess", lambda run, columns: (scores, {}))
    found = {
        k: m.everywhere.mean for k, m in lab.measure_pairs(start()).methods.items()
    }
    assert found["blocks"] == found["igci"] == 1
    assert found["selection"] == 0
    assert found["shuffled"] == 0.5
    assert found["coin"] == pytest.approx(8 / 11)


def test_pairs_that_are_sorted_are_left_out_and_counted(nowhere, monkeypatch):
    pairs = lab.load_pairs(start())
    each = pairs.columns.each()
    for i, which in ((2, "cause"), (5, "cause"), (6, "effect")):
        place = (pairs.side[i] < 0) == (which == "cause")
        order = np.argsort(each[i][int(place)], kind="stable")
        each[i] = tuple(column[order] for column in each[i])
    monkeypatch.setattr(
        lab, "load_pairs", lambda run: pairs._replace(columns=lab.columns_of(each))
    )
    found = lab.measure_pairs(start())
    assert (found.reasons["by_cause"], found.reasons["by_effect"]) == (2, 1)
    assert found.claims["pairs_unsorted"]["judged"] == 6
    assert found.claims["pairs_blocks"]["judged"] == found.pairs == 9
    kept = np.delete(found.methods["blocks"].right, [2, 5, 6])
    assert found.methods["blocks"].unsorted.mean == pytest.approx(kept.mean())


# The file, and a machine without it


def test_without_the_file_nine_pairs_stand_in_and_one_line_says_so(nowhere, capsys):
    run = start("quick", marginals=3, resamples=20, rows=30)
    capsys.readouterr()
    found = lab.measure_pairs(run)
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 1
    assert "tuebingen_pairs is not on this machine: nine pairs" in said
    assert str(data.folder()) not in said
    assert {numbers["pairs"] for numbers in found.claims.values()} == {9}


def test_a_damaged_file_is_told_and_nothing_stands_in(tmp_path, monkeypatch):
    monkeypatch.setenv("ICLRTUT_DATA", str(tmp_path))
    (tmp_path / "tuebingen_pairs.npz").write_bytes(b"no arrays")
    with pytest.raises(RunFailed, match="is not tuebingen_pairs as recorded"):
        lab.load_pairs(start())


@real
def test_the_file_holds_what_the_readme_says():
    pairs = lab.load_pairs(start("quick"))
    z = data.load("tuebingen_pairs")
    assert len(pairs.side) == len(z["weight"]) == 99
    assert len(set(pairs.source.tolist())) == 35
    known = lab.columns_of(
        [
            (z["cause"][low:high], z["effect"][low:high])
            for low, high in zip(z["offsets"], z["offsets"][1:], strict=False)
        ]
    )
    for i, (x, y) in enumerate(pairs.columns.each()):
        cause, effect = (x, y) if pairs.side[i] > 0 else (y, x)
        np.testing.assert_array_equal(cause, known.each()[i][0])
        np.testing.assert_array_equal(effect, known.each()[i][1])
    assert lab.in_order(known).sum(0).tolist() == [9, 0]


@real
@pytest.mark.parametrize("most", [1, 12, 99, 500])
def test_a_smaller_profile_takes_pairs_from_all_over_the_file(most):
    pairs = lab.load_pairs(start("quick", pairs=most))
    assert len(pairs.side) == len(pairs.names) == min(most, 99)
    named = {name for names in pairs.names for name in names}
    assert "Altitude" in named
    if most > 1:
        assert data.load("tuebingen_pairs")["cause_name"][-1] in named


def test_records_are_of_the_real_pairs():
    declared = [c.id for c in claims.chapter("meta_transfer").claims]
    for file in (TREE / "records" / "meta_transfer").glob("[qf]*.json"):
        measured = json.loads(file.read_text(encoding="utf-8"))["claims"]
        for id in declared:
            if id.startswith("pairs_"):
                assert measured[id]["pairs"] == 99, file
