"""The loop trains, survives, stops when it must, and never shows stale results."""

import io
import math
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from iclrtut import train
from iclrtut.checkpoint import fingerprint
from iclrtut.checks import CheckFailed
from iclrtut.errors import BadRequest
from iclrtut.train import (
    Diverged,
    Loop,
    constant,
    cosine,
    fit,
    linear,
    same_steps,
    warmup_cosine,
)

STEPS = 30


class Buffer:
    """Samples that training changes, as a sampler keeps them."""

    def __init__(self):
        self.samples = torch.zeros(8, 3)

    def state_dict(self):
        return {"samples": self.samples}

    def load_state_dict(self, state):
        self.samples = state["samples"].clone()


class Setting:
    """A small training that uses all that a checkpoint must hold."""

    def __init__(self, noise=0.1, seed=0, data=None):
        torch.manual_seed(seed)
        self.model = nn.Sequential(
            nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.2), nn.Linear(4, 1)
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 0.05)
        self.generator = torch.Generator().manual_seed(seed)
        self.buffer = Buffer()
        self.noise = noise
        self.data = torch.arange(9.0).view(3, 3) if data is None else data

    @property
    def state(self):
        return {
            "model": self.model,
            "buffer": self.buffer,
            "generator": self.generator,
        }

    def loss_at(self, t):
        x = torch.randn(8, 3, generator=self.generator) + self.buffer.samples
        self.buffer.samples = 0.9 * x + self.noise * torch.randn(8, 3)
        loss = (self.model(x @ self.data).sum() - t / 10) ** 2
        return loss, {"size": x.abs().max()}

    def step(self, t):
        loss, watched = self.loss_at(t)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss, **watched}

    def loop(self, **changes):
        known = Loop(self.step, self.optimizer, self.state, cosine(STEPS))
        return known._replace(**changes)

    def fit(self, folder, steps=STEPS, **changes):
        parts = {key: changes.pop(key) for key in Loop._fields if key in changes}
        options = {"name": "toy", "folder": folder, "every": 7} | changes
        return fit(self.loop(**parts), steps, **options)

    def everything(self):
        states = [
            self.model.state_dict(),
            self.optimizer.state_dict(),
            self.buffer.state_dict(),
            self.generator.get_state(),
            torch.get_rng_state(),
        ]
        return fingerprint(states)


@pytest.fixture(scope="module")
def undisturbed():
    setting = Setting()
    history = setting.fit(None)
    return setting.everything(), history


def test_it_is_the_plain_loop(undisturbed):
    setting, losses = Setting(), []
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        setting.optimizer, lambda t: (1 + math.cos(math.pi * t / STEPS)) / 2
    )
    for t in range(STEPS):
        loss, _ = setting.loss_at(t)
        setting.optimizer.zero_grad()
        loss.backward()
        setting.optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    end, history = undisturbed
    assert history.curves["loss"] == losses
    assert setting.everything() == end
    assert len(history.curves["size"]) == STEPS
    assert history.resumed_at == 0 and history.seconds > 0


def rates(schedule, steps, groups=1):
    """The learning rates of each step, from 1.0, one group of weights after another."""
    weights = [nn.Parameter(torch.ones(1)) for _ in range(groups)]
    optimizer = torch.optim.SGD([{"params": [w]} for w in weights], 1.0)
    seen = []

    def step(t):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        return {"loss": 0}

    state = {"weights": nn.ParameterList(weights)}
    loop = Loop(step, optimizer, state, schedule)
    fit(loop, steps, folder=None, name="rates")
    return list(zip(*seen, strict=True))


def test_schedules_are_those_of_torch():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 1.0)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 1e-30, 8)
    half = torch.optim.lr_scheduler.CosineAnnealingLR(
        torch.optim.SGD([nn.Parameter(torch.ones(1))], 1.0), 8
    )
    one, other = [], []
    for _ in range(8):
        one += falling.get_last_lr()
        other += half.get_last_lr()
        optimizer.step()
        falling.step()
        half.optimizer.step()
        half.step()
    first, second = rates([linear(8), cosine(8)], 8, groups=2)
    assert first == pytest.approx(one) and second == pytest.approx(other)
    assert linear(8)(8) == cosine(8)(8) == 0


def test_a_warm_up_rises_before_the_cosine():
    (found,) = rates(warmup_cosine(10, 110), 110)
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert [found[i] for i in (10, 60)] == pytest.approx([1.0, 0.5])
    assert found[10:] == pytest.approx(rates(cosine(100), 100)[0])


def test_progress_is_shown(capsys):
    Setting().fit(None, name="show me")
    out = capsys.readouterr().out
    assert "show me: 100%" in out and "30/30" in out and "loss=" in out


@pytest.mark.parametrize("step", [0, 1, 6, 7, 8, 20, 29])
def test_the_same_cell_goes_on_after_an_interrupt(tmp_path, undisturbed, step, capsys):
    setting = Setting()
    with pytest.MonkeyPatch.context() as patch:
        counted = iter(range(STEPS))

        def step_or_stop(*_):
            if next(counted) == step:
                raise KeyboardInterrupt

        patch.setattr(train, "_beyond", step_or_stop)
        with pytest.raises(KeyboardInterrupt):
            setting.fit(tmp_path)
    history = setting.fit(tmp_path)
    last_good = 7 * ((step - 1) // 7) if step else 0
    assert history.resumed_at == last_good
    assert (setting.everything(), history.curves) == (
        undisturbed[0],
        undisturbed[1].curves,
    )
    said = capsys.readouterr().out
    assert (f"{last_good} steps are done, from" in said) == (step > 0)


def test_a_new_session_goes_on_from_a_cell_that_was_run_twice(tmp_path, undisturbed):
    setting = Setting()
    with pytest.MonkeyPatch.context() as patch:
        counted = iter(range(1000))

        def stop_now_and_then(*_):
            if next(counted) % 10 == 9:
                raise KeyboardInterrupt

        patch.setattr(train, "_beyond", stop_now_and_then)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                setting.fit(tmp_path)
    fresh = Setting()
    assert fresh.fit(tmp_path).resumed_at == 14
    assert fresh.everything() == undisturbed[0]


def test_a_finished_training_is_not_repeated(tmp_path, undisturbed):
    first = Setting().fit(tmp_path)
    fresh = Setting()
    again = fresh.fit(tmp_path)
    assert again == first._replace(resumed_at=STEPS)
    assert fresh.everything() == undisturbed[0]
    assert fresh.fit(tmp_path) == again  # the same cell run twice


def _train(folder, moment):
    """Train; with a moment, SIGKILL comes that many seconds after the fourth step.

    The moment goes by the environment: as a constant it would be other code.
    """
    os.environ["MOMENT"] = moment
    setting, calls = Setting(), iter(range(STEPS))

    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    def step(t):
        call, moment = next(calls), os.environ["MOMENT"]
        if moment and call == 4:
            threading.Timer(float(moment), kill).start()
        if moment and call == 9:
            kill()
        time.sleep(0.01)
        return setting.step(t)

    history = setting.fit(folder, step=step, every=2)
    (folder / "result").write_text(f"{history.resumed_at} {setting.everything()}")


def _killed_and_resumed(folder):
    """Train in processes killed at random moments, then once to the end."""
    Setting()  # what torch imports with the first optimiser is imported here, once
    context = multiprocessing.get_context("fork")
    moments = random.Random(0)
    for moment in (*(str(moments.uniform(0, 0.06)) for _ in range(3)), ""):
        training = context.Process(target=_train, args=(folder, moment))
        training.start()
        training.join()
        assert training.exitcode == (-signal.SIGKILL if moment else 0)


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_sigkill_at_random_moments_then_the_same_bits(tmp_path, undisturbed):
    code = f"from pathlib import Path; from {__name__} import _killed_and_resumed as k"
    subprocess.run(
        [sys.executable, "-c", f"{code}; k(Path({str(tmp_path)!r}))"],
        cwd=os.path.dirname(__file__),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
    )
    resumed_at, end = (tmp_path / "result").read_text().split()
    assert 6 <= int(resumed_at) < STEPS
    assert end == undisturbed[0]


changes = {
    "first weights": {"seed": 1},
    "constant in an attribute": {"noise": 0.2},
    "data": {"data": torch.ones(3, 3)},
}


@pytest.mark.parametrize("change", changes.values(), ids=changes.keys())
def test_a_reader_who_changed_something_sees_no_stale_result(tmp_path, change, capsys):
    Setting().fit(tmp_path)
    changed = Setting(**change)
    assert changed.fit(tmp_path).resumed_at == 0
    assert "is of other code, data, settings or weights" in capsys.readouterr().out
    end = changed.everything()
    alone = Setting(**change)
    alone.fit(None)
    assert alone.everything() == end


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_training(tmp_path, poison):
    setting = Setting()

    def poisoned(t):
        loss, watched = Setting.loss_at(setting, t)
        return loss * (poison if t == 17 else 1), watched

    setting.loss_at = poisoned
    with pytest.raises(Diverged, match=f"toy: at step 17 loss is {poison}") as raised:
        setting.fit(tmp_path)
    assert "the state of step 14 is back: lower the learning rate (" in str(
        raised.value
    )
    assert raised.value.step == 17
    assert len(raised.value.history.curves["loss"]) == 18
    at_14 = Setting()
    at_14.fit(None, steps=14)
    assert setting.everything() == at_14.everything()


def test_a_watched_number_has_a_limit():
    setting = Setting()
    with pytest.raises(
        Diverged, match=r"size is [\d.]+, beyond its limit of 0\.5"
    ) as e:
        setting.fit(None, limits={"size": 0.5})
    assert e.value.step == 0
    assert setting.everything() == Setting().everything()


def test_the_sign_of_a_watched_number_does_not_matter():
    setting = Setting()
    with pytest.raises(Diverged, match="gap is -3, beyond its limit of 2"):
        setting.fit(
            None, step=lambda t: setting.step(t) | {"gap": -t}, limits={"gap": 2}
        )


def test_weights_that_end_as_nan_are_not_kept():
    setting = Setting()

    def loss_at(t):
        loss, watched = Setting.loss_at(setting, t)
        if t == STEPS - 1:  # finite value, infinite gradient
            loss = loss + 0 * torch.sqrt(0 * loss)
        return loss, watched

    setting.loss_at = loss_at
    with pytest.raises(Diverged, match="at step 30 a weight is not finite"):
        setting.fit(None)
    assert all(p.isfinite().all() for p in setting.model.parameters())


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def cut(data, trap):
    return data[:-100]


def emptied(data, trap):
    return b""


def flipped(data, trap):
    """One bit of a weight, which `torch.load` by itself takes as it is."""
    weight = torch.load(io.BytesIO(data))["states"]["state/model"]["0.weight"]
    at = data.index(weight.numpy().tobytes())
    changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    assert torch.load(io.BytesIO(changed))["step"] == STEPS
    return changed


def pickled(data, trap):
    return pickle.dumps(trap)


def saved(data, trap):
    file = io.BytesIO()
    torch.save(trap, file)
    return file.getvalue()


@pytest.mark.parametrize("damage", [cut, emptied, flipped, pickled, saved])
def test_a_damaged_checkpoint_is_set_aside(tmp_path, undisturbed, damage, capsys):
    Setting().fit(tmp_path)
    file = tmp_path / "toy.checkpoint"
    file.write_bytes(damage(file.read_bytes(), Trap(tmp_path / "mark")))
    damaged = file.read_bytes()
    setting = Setting()
    assert setting.fit(tmp_path).resumed_at == 0
    assert setting.everything() == undisturbed[0]
    assert not (tmp_path / "mark").exists()
    assert (tmp_path / "toy.bad").read_bytes() == damaged
    assert "is no whole checkpoint" in capsys.readouterr().out
    assert Setting().fit(tmp_path).resumed_at == STEPS


def test_a_full_disk_is_told_once_and_training_goes_on(full_disk, undisturbed, capsys):
    (full_disk / "filler").write_bytes(bytes(60_000))
    setting = Setting()
    setting.fit(full_disk)
    assert setting.everything() == undisturbed[0]
    said = capsys.readouterr().out
    assert said.count("training goes on without checkpoints, for") == 1
    assert "free some space" in said
    assert [file.name for file in full_disk.iterdir()] == ["filler"]


def test_no_permission_is_told_and_training_goes_on(locked_folder, undisturbed, capsys):
    setting = Setting()
    setting.fit(locked_folder)
    assert setting.everything() == undisturbed[0]
    said = capsys.readouterr().out
    assert "cannot be read (Permission denied), so training starts over" in said
    assert said.count("training goes on without checkpoints, for") == 1


def test_bad_requests():
    setting = Setting()
    with pytest.raises(BadRequest, match="steps=0 and every=7"):
        setting.fit(None, steps=0)
    with pytest.raises(BadRequest, match="every=0"):
        setting.fit(None, every=0)
    with pytest.raises(BadRequest, match="2 schedules for 1 groups"):
        setting.fit(None, schedule=[linear(9), linear(9)])
    with pytest.raises(BadRequest, match="the step returned NoneType: return its"):
        setting.fit(None, step=lambda t: None)
    with pytest.raises(BadRequest, match=r'as \{"loss": loss\}'):
        setting.fit(None, step=lambda t: {"size": 1})
    with pytest.raises(BadRequest, match="limits name gpa, which is not watched"):
        setting.fit(None, limits={"gpa": 1})
    for size in (torch.zeros(2), np.zeros(2), None, "large"):
        with pytest.raises(BadRequest, match="a size that is no single number"):
            setting.fit(None, step=lambda t, size=size: {"loss": 1, "size": size})
    with pytest.raises(BadRequest, match="steps weights that no module of the state"):
        setting.fit(None, state={"buffer": setting.buffer})
    with pytest.raises(
        BadRequest, match="state/samples is a list, which has no state_dict"
    ):
        setting.fit(None, state=setting.state | {"samples": []})
    setting.buffer.samples = np.float64(1).reshape(())
    with pytest.raises(BadRequest, match="leave anything else out of state_dict"):
        setting.fit(None)


# The loop on the page and that of the package


def kept(setting):
    """A loop, by its setting, that writes its step as a page does, changed or not."""

    def step(t):
        loss, _ = setting.loss_at(t)
        setting.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        setting.optimizer.step()
        return {"loss": loss}

    return setting.loop(step=step)


def test_the_same_steps_are_told_in_one_line_and_leave_no_trace(capsys, undisturbed):
    page, package = Setting(), Setting()
    before = page.everything()
    same_steps(kept(page), package.loop())
    said = "✓ loop: page and package take the same 3 steps, to the last bit"
    assert capsys.readouterr().out == f"{said}\n"
    assert page.everything() == package.everything() == before
    page.fit(None)
    assert page.everything() == undisturbed[0]


def still(setting):
    """A loop that forgets the gradient."""

    def step(t):
        loss, _ = setting.loss_at(t)
        setting.optimizer.step()
        return {"loss": loss}

    return setting.loop(step=step)


def other_rate():
    setting = Setting()
    setting.optimizer.param_groups[0]["lr"] *= 1 + 1e-6
    return kept(setting)


def term_left_out():
    setting = Setting()
    setting.loss_at = lambda t: (Setting.loss_at(setting, 0)[0], {})
    return kept(setting)


def one_draw_more():
    loop = kept(Setting())

    def step(t):
        numbers = loop.step(t)
        torch.randn(1, generator=loop.state["generator"])
        return numbers

    return loop._replace(step=step)


def one_more_from_torch():
    loop = kept(Setting())
    return loop._replace(step=lambda t: loop.step(t) | {"more": torch.randn(1)})


def gradients_that_pile_up():
    setting = Setting()

    def step(t):
        loss, _ = setting.loss_at(t)
        loss.backward()
        setting.optimizer.step()
        return {"loss": loss}

    return setting.loop(step=step)


def one_layer_frozen():
    setting = Setting()
    setting.optimizer = torch.optim.AdamW(
        [*setting.model[0].parameters(), *setting.model[3].parameters()][:3], 0.05
    )
    return kept(setting)


def one_unit_more():
    setting = Setting()
    setting.model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    setting.optimizer = torch.optim.AdamW(setting.model.parameters(), 0.05)
    return kept(setting)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: kept(Setting(seed=1)), "model.0.weight differs before step 0"),
        (lambda: kept(Setting(noise=0.2)), "model.0.weight differs after step 1"),
        (lambda: kept(Setting())._replace(schedule=constant), "differs after step 1"),
        (other_rate, "model.0.weight differs after step 0 "),
        (term_left_out, "differs after step 1"),
        (one_draw_more, "differs after step 1"),
        (one_more_from_torch, "differs after step 1"),
        (gradients_that_pile_up, "differs after step 1"),
        (one_layer_frozen, "3 tensors are trained on the page, 4 in the package"),
        (
            one_unit_more,
            r"torch.float32 \(5, 3\) on the page, torch.float32 \(4, 3\) in",
        ),
    ],
)
def test_a_loop_that_is_another_is_found(wrong, words):
    with pytest.raises(CheckFailed, match=f"^✗ loop: .*{words}"):
        same_steps(wrong(), Setting().loop())


def test_the_weights_of_a_difference_are_said():
    page, package = Setting(), Setting()
    with torch.no_grad():
        page.model[3].bias.copy_(torch.tensor([1.5]))
        package.model[3].bias.copy_(torch.tensor([2.5]))
    with pytest.raises(
        CheckFailed, match=r"model\.3\.bias .*\(1\.5 on the page, 2\.5 in"
    ):
        same_steps(page.loop(), package.loop())


def test_a_comparison_that_cannot_fail_is_refused():
    setting = Setting()
    with pytest.raises(BadRequest, match="train the same weights: build each its own"):
        same_steps(setting.loop(), kept(setting))
    with pytest.raises(BadRequest, match="steps=0 must be 1 or more"):
        same_steps(kept(Setting()), Setting().loop(), steps=0)
    page, package = (still(Setting()) for _ in range(2))
    with pytest.raises(CheckFailed, match="no weight moves in 3 steps"):
        same_steps(page, package)


def test_a_step_that_fails_leaves_the_loop_as_it_was():
    page = Setting()
    before = page.everything()

    def step(t):
        page.step(t)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        same_steps(page.loop(step=step), Setting().loop())
    assert page.everything() == before
