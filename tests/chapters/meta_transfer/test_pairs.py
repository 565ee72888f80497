"""The real pairs of the chapter on meta-transfer, each step against another route."""

import json
from pathlib import Path

import numpy as np
import pytest
import runs
import torch
from scipy.special import softmax
from scipy.stats import norm

from iclrtut import claims, data
from iclrtut.chapters.meta_transfer import method, pairs
from iclrtut.errors import BadRequest

folder, start = runs.folder, runs.of("meta_transfer")
TREE = Path(__file__).resolve().parents[3]


def dependent(sizes=(40, 61, 200), seed=0, ties=False):
    """Dependent columns of random shapes; with ties, of few values."""
    rng = np.random.default_rng(seed)
    columns = []
    for n in sizes:
        x = rng.gamma(2, size=n)
        y = np.sin(x) + 0.3 * rng.standard_normal(n)
        columns.append((np.floor(2 * x), np.round(2 * y)) if ties else (x, y))
    return pairs.checked(columns)


def counted(n=3, blocks=(), seed=0, high=9):
    """Random counts [n, *blocks, BINS, BINS]."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, high, (n, *blocks, pairs.BINS, pairs.BINS))


def additive(n=400, seed=0, shape=np.tanh):
    """A cause, and an effect with independent noise added."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-3, 3, n)
    return x, shape(x) + 0.1 * rng.uniform(-1, 1, n)


# Columns


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
        pairs.checked([(GOOD, GOOD), pair])


def test_no_pairs_are_told():
    with pytest.raises(BadRequest, match="no pairs"):
        pairs.checked([])


def swapped(columns):
    return [(y, x) for x, y in columns]


def test_what_counts_as_sorted():
    rng = np.random.default_rng(0)
    rising, free = np.arange(500) // 7, rng.permutation(500)
    days = np.tile(np.arange(250), 2)  # goes back once in 499 steps
    hours = np.tile(np.arange(25), 20)  # once in 25
    columns = (rising, -rising, days, hours, free)
    assert [pairs.in_order(x) for x in columns] == [True, True, True, False, False]


# Tables


@pytest.mark.parametrize("ties", [False, True])
def test_bins_by_rank_hold_equal_counts_and_keep_the_order(ties):
    for y, _ in dependent(ties=ties):
        code = pairs.by_rank(y, np.random.default_rng(1))
        counts = np.bincount(code, minlength=pairs.BINS)
        assert len(counts) == pairs.BINS and np.ptp(counts) <= 1
        for value in y:
            assert code[y < value].max(initial=0) <= code[y == value].min()


def test_ties_are_broken_by_chance_and_nothing_else_is():
    n, rngs = 4000, [np.random.default_rng(seed) for seed in (1, 2)]
    one, two = (pairs.by_rank(np.repeat([0.0, 1.0], n // 2), rng) for rng in rngs)
    place, low = np.arange(n // 2), one[: n // 2]
    # Independent of the place: a correlation has a deviation of 1 / sqrt(n).
    assert abs(np.corrcoef(low, place)[0, 1]) < 5 / np.sqrt(n / 2)
    assert 0.7 < (low != two[: n // 2]).mean() < 0.9  # 4 of 5 by chance
    free = [pairs.by_rank(np.arange(n), rng) for rng in rngs]
    np.testing.assert_array_equal(*free)


def test_parts_are_runs_of_rows_or_shuffled():
    for n in (40, 61, 200):
        runs, mixed = (
            pairs.parts_of(n, 5),
            pairs.parts_of(n, 5, np.random.default_rng(0)),
        )
        pieces = np.array_split(runs, np.flatnonzero(np.diff(runs)) + 1)
        assert [piece[0] for piece in pieces] == [0, 1, 2, 3, 4]
        assert {len(piece) for piece in pieces} <= {n // 5, -(-n // 5)}
        np.testing.assert_array_equal(np.sort(mixed), runs)
        assert (mixed != runs).mean() > 0.5


def test_tables_count_rows():
    columns, n = dependent(), 3
    codes = pairs.ranked(columns, np.random.default_rng(0))
    expected = np.zeros((3, n, pairs.BINS, pairs.BINS), int)
    for i, (x, y) in enumerate(codes):
        for cell in zip(pairs.parts_of(len(x), n), x, y, strict=True):
            expected[i][cell] += 1
    np.testing.assert_array_equal(pairs.tables(codes, n), expected)


def test_half_a_row_is_added_to_each_cell():
    counts = counted()
    result = method.smoothed(counts).exp()
    expected = (counts + 0.5) / (counts.sum((1, 2)) + 50)[:, None, None]
    np.testing.assert_allclose(result, expected, rtol=1e-13)


# Adaptation, against a transcription with one table and one learner at a time


def plain_curve(p, star, steps):
    """KL of one learner, rows to columns, after each of the steps."""
    u, v = np.log(p.sum(1)), np.log(p)
    result = []
    for step in range(steps + 1):
        here = softmax(u)[:, None] * softmax(v, axis=1)
        result.append((star * np.log(star / here)).sum())
        if step < steps:
            u = u - pairs.RATE * (softmax(u) - star.sum(1))
            v = v - pairs.RATE * (star.sum(1)[:, None] * softmax(v, axis=1) - star)
    return np.array(result)


def plain_lead(p, star, steps):
    return (plain_curve(p.T, star.T, steps) - plain_curve(p, star, steps)).sum()


def plain_filled(counts):
    return (counts + 0.5) / (counts + 0.5).sum()


def test_adaptation_from_block_to_block_is_the_transcription():
    counts, steps = counted(blocks=(5,)), 7
    lead, drift = pairs.across_blocks(counts, steps)
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


def test_selection_is_the_transcription_with_all_of_both_learners():
    counts, steps, M = counted(), 6, 4
    laws = method.log_dirichlet(
        (3, M, pairs.BINS), 1.0, torch.Generator().manual_seed(0)
    )
    result = pairs.under_selection(counts, laws, steps)
    for i in range(3):
        p, expected = plain_filled(counts[i]), [0, 0]
        for law in laws[i].exp().numpy():
            on_first = p / p.sum(1, keepdims=True) * law[:, None]
            on_second = p / p.sum(0) * law
            expected[0] += plain_lead(p, on_first, steps)
            expected[1] += plain_lead(p, on_second, steps)
        np.testing.assert_allclose([side[i] for side in result], expected, rtol=1e-10)
        assert result[0][i] > 0 > result[1][i]  # each law favours its own column


def test_what_is_left_over_changes_sign_with_the_table_and_is_0_where_symmetric():
    counts = counted(4)
    counts[3] = counts[3] + counts[3].T
    laws = method.log_dirichlet(
        (4, 5, pairs.BINS), 1.0, torch.Generator().manual_seed(1)
    )
    gaps = pairs.under_selection(counts, laws, 10)
    rest = pairs.left_over(gaps)
    turned = pairs.left_over(pairs.under_selection(counts.transpose(0, 2, 1), laws, 10))
    np.testing.assert_allclose(rest, -turned, atol=1e-11)
    assert rest[3] == 0 and (rest[:3] != 0).all()
    assert (np.abs(rest) < np.abs(gaps).sum(0) / 5).all()


# Other methods


@pytest.mark.parametrize("width", [1.0, 3.0])
def test_entropy_of_known_laws(width):
    n = 20_000
    rng = np.random.default_rng(0)
    # One spacing's log has a variance of pi^2 / 6 about the mean.
    close = 6 * np.pi / np.sqrt(6 * n)
    result = pairs.entropy(width * rng.random(n))
    assert result == pytest.approx(np.log(width), abs=close)
    result = pairs.entropy(width * rng.standard_normal(n))
    assert result == pytest.approx(norm(scale=width).entropy(), abs=close)


def test_entropies_find_a_deterministic_cause_and_know_no_units():
    x = np.random.default_rng(0).random(500)
    columns = pairs.checked([(x, x**3), (5 - 7 * x, 100 * np.exp(4 * x))])
    assert (pairs.igci(columns) > 0).all()
    plain = pairs.checked([(x, x**3), (-x, np.exp(4 * x))])
    np.testing.assert_allclose(pairs.igci(columns), pairs.igci(plain), rtol=1e-8)


def test_regression_error_is_least_squares_on_powers():
    columns = dependent()
    expected = []
    for pair in columns:
        x, y = ((c - c.min()) / (c.max() - c.min()) for c in pair)
        errors = []
        for given, output in ((y, x), (x, y)):
            powers = np.stack([given**k for k in range(4)], 1)
            fit = powers @ np.linalg.lstsq(powers, output, rcond=None)[0]
            errors.append(((output - fit) ** 2).mean())
        expected.append(errors[0] - errors[1])
    np.testing.assert_allclose(pairs.regression_error(columns), expected, rtol=1e-8)


def test_hsic_is_the_trace():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(30), rng.integers(0, 4, 30).astype(float)

    def kernel(z):
        squares = [[(a - b) ** 2 for a in z] for b in z]
        apart = [s for row in squares for s in row if s > 0]
        return np.exp(-np.array(squares) / np.median(apart))

    H = np.eye(30) - 1 / 30
    expected = np.trace(kernel(x) @ H @ kernel(y) @ H) / 30**2
    assert pairs.hsic(x, y) == pytest.approx(expected, rel=1e-10)
    assert pairs.hsic(x, 0 * y) == pytest.approx(0, abs=1e-15)


def test_the_residual_is_that_of_kernel_ridge_regression():
    x, y = additive(60)
    kernel = np.exp(-((x[:, None] - x) ** 2))
    residual = y - kernel @ np.linalg.solve(kernel + 0.1 * np.eye(60), y)
    assert pairs._dependence(x, y) == pytest.approx(pairs.hsic(x, residual), rel=1e-8)


@pytest.mark.parametrize("shape", [np.tanh, np.square, lambda x: x**3])
def test_a_pair_with_additive_noise_is_found_and_its_swap_too(shape):
    for seed in range(3):
        x, y = additive(seed=seed, shape=shape)
        columns = pairs.checked([(x, y), (y, x)])
        result = pairs.additive_noise(columns, 250, np.random.default_rng(0))
        assert result[0] > 0 > result[1]


# Guessing


def test_every_method_but_the_coin_turns_with_the_columns():
    columns, run = dependent((60, 90, 150)), start()
    one, _ = pairs.guess(run, columns)
    two, _ = pairs.guess(run, swapped(columns))
    assert list(one) == list(pairs.METHODS)
    for key in pairs.METHODS:
        same = 1 if key == "coin" else -1
        np.testing.assert_allclose(one[key], same * two[key], rtol=1e-6, atol=1e-12)
        assert (one[key] != 0).all()


# The verdict


def test_the_bootstrap_is_the_loop_over_data_sets():
    rng = np.random.default_rng(0)
    right, weight = rng.integers(0, 3, 30) / 2, rng.random(30)
    source = rng.integers(0, 6, 30) * 7
    result = pairs.accuracy(right, weight, source, 50, np.random.default_rng(5))
    known, means = np.unique(source), []
    for times in np.random.default_rng(5).multinomial(6, [1 / 6] * 6, 50):
        sets = np.repeat(known, times)
        at = np.concatenate([np.flatnonzero(source == s) for s in sets])
        means.append((right * weight)[at].sum() / weight[at].sum())
    assert result.mean == pytest.approx((right * weight).sum() / weight.sum())
    assert result[1:] == pytest.approx(np.quantile(means, [0.025, 0.975]).tolist())


def test_measured_are_the_claims_that_the_chapter_declares(capsys):
    run = start()
    result = pairs.measure_pairs(run)
    declared = [c.id for c in run.chapter.claims if c.id.startswith("real_")]
    assert set(result.claims) == set(declared)
    assert list(result.methods) == list(pairs.METHODS)
    for id, numbers in result.claims.items():
        assert numbers["low"] <= numbers["value"] <= numbers["high"]
        assert numbers["pairs"] == result.pairs >= numbers["judged"]
        run.claim(id, **numbers)
    for key in ("selection", "blocks", "shuffled"):
        assert result.claims[f"real_{key}"]["low"] == result.methods[key].everywhere.low
    assert (
        result.claims["real_unsorted"]["value"]
        == result.methods["blocks"].unsorted.mean
    )
    ahead = [result.methods[key].everywhere.mean for key in ("blocks", "drift")]
    drift = result.claims["real_drift"]
    assert drift["value"] == pytest.approx(ahead[0] - ahead[1])


def test_a_seed_says_the_same_twice_and_another_does_not():
    one, two, other = (pairs.measure_pairs(start(seed=s)) for s in (3, 3, 4))
    assert one.claims == two.claims and one.reasons == two.reasons
    assert one.claims != other.claims


# The truth stays with the evaluation


def test_columns_are_swapped_by_chance_and_sides_say_how():
    sides, causes = [], {}
    for seed in range(100, 130):
        loaded = pairs.load_pairs(start("quick", seed=seed))
        sides.append(loaded.side)
        for i, (side, names) in enumerate(zip(loaded.side, loaded.names, strict=True)):
            pair = names[::side], *(column[0] for column in loaded.columns[i][::side])
            assert causes.setdefault(i, pair) == pair
    # 2,970 fair coins: a deviation of 1 / sqrt(2970).
    assert abs(np.mean(sides)) < 4 / np.sqrt(2970)
    assert len({tuple(side) for side in sides}) == 30


def test_the_evaluation_counts_weights_sides_and_silence(monkeypatch):
    loaded = pairs.load_pairs(start(pairs=9))
    scores = dict.fromkeys(pairs.METHODS, loaded.side.astype(float))
    scores["selection"] = -loaded.side
    scores["shuffled"] = 0.0 * loaded.side
    scores["coin"] = np.where(np.arange(9) == 0, -1, 1) * loaded.side
    weighted = loaded._replace(weight=np.array([3.0, *[1.0] * 8]))
    monkeypatch.setattr(pairs, "load_pairs", lambda run: weighted)
    monkeypatch.setattr(pairs, "guess", lambda run, columns: (scores, {}))
    result = {
        k: m.everywhere.mean for k, m in pairs.measure_pairs(start()).methods.items()
    }
    assert result["blocks"] == result["igci"] == 1
    assert result["selection"] == 0
    assert result["shuffled"] == 0.5
    assert result["coin"] == pytest.approx(8 / 11)


def test_pairs_that_are_sorted_are_left_out_and_counted(monkeypatch):
    loaded = pairs.load_pairs(start(pairs=9))
    rng, each = np.random.default_rng(0), loaded.columns
    for i, columns in enumerate(each):  # in no order
        order = rng.permutation(len(columns[0]))
        each[i] = tuple(column[order] for column in columns)
    for i, which in ((2, "cause"), (5, "cause"), (6, "effect")):
        place = (loaded.side[i] < 0) == (which == "cause")
        order = np.argsort(each[i][int(place)], kind="stable")
        each[i] = tuple(column[order] for column in each[i])
    monkeypatch.setattr(
        pairs, "load_pairs", lambda run: loaded._replace(columns=pairs.checked(each))
    )
    result = pairs.measure_pairs(start())
    assert (result.reasons["by_cause"], result.reasons["by_effect"]) == (2, 1)
    assert result.claims["real_unsorted"]["judged"] == 6
    assert result.claims["real_blocks"]["judged"] == result.pairs == 9
    right, weight = result.methods["blocks"].right, loaded.weight
    kept, weights = (np.delete(each, [2, 5, 6]) for each in (right, weight))
    mean = (kept * weights).sum() / weights.sum()
    assert result.methods["blocks"].unsorted.mean == pytest.approx(mean)


# The file


def test_pairs_are_the_same_wherever_the_reader_keeps_data(tmp_path, monkeypatch):
    """The file comes with the package; bits do not depend on a folder of data."""
    small = {"pairs": 9, "marginals": 3, "resamples": 20, "rows": 30}
    with_folder = pairs.measure_pairs(start("quick", **small))
    monkeypatch.setenv("ICLRTUT_DATA", str(tmp_path / "none"))
    run = start("quick", **small)
    assert pairs.measure_pairs(run).claims == with_folder.claims
    assert list(run.record()["data"]) == ["tuebingen_pairs"]


def test_the_file_holds_what_the_readme_says():
    loaded = pairs.load_pairs(start("quick"))
    z = data.load("tuebingen_pairs")
    assert len(loaded.side) == len(z["weight"]) == 99
    assert len(set(loaded.source.tolist())) == 35
    known = pairs.checked(
        [
            (z["cause"][low:high], z["effect"][low:high])
            for low, high in zip(z["offsets"], z["offsets"][1:], strict=False)
        ]
    )
    for i, (x, y) in enumerate(loaded.columns):
        cause, effect = (x, y) if loaded.side[i] > 0 else (y, x)
        np.testing.assert_array_equal(cause, known[i][0])
        np.testing.assert_array_equal(effect, known[i][1])
    assert [sum(map(pairs.in_order, side)) for side in zip(*known, strict=True)] == [
        9,
        0,
    ]


@pytest.mark.parametrize("most", [1, 12, 99, 500])
def test_a_smaller_profile_takes_pairs_from_all_over_the_file(most):
    loaded = pairs.load_pairs(start("quick", pairs=most))
    assert len(loaded.side) == len(loaded.names) == min(most, 99)
    named = {name for names in loaded.names for name in names}
    assert "Altitude" in named
    if most > 1:
        assert data.load("tuebingen_pairs")["cause_name"][-1] in named


def test_records_are_of_the_real_pairs():
    declared = [c.id for c in claims.chapter("meta_transfer").claims]
    for file in (TREE / "records" / "meta_transfer").glob("[qf]*.json"):
        measured = json.loads(file.read_text(encoding="utf-8"))["claims"]
        for id in declared:
            if id.startswith("real_"):
                assert measured[id]["pairs"] == 99, file
