"""Optimizers of every kind: found and refused before anything is loaded, stored and resumed to the last bit."""

import importlib.util

import pytest
import torch
from durable_toy import ListeningModule, everything, train
from toy_regression import ToyDataset

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.training import optimizers
from wan_alpha.training.config import TrainingSettings, load_recipe
from wan_alpha.training.optimizer_state import restore_state, split_state
from wan_alpha.training.optimizers import KNOWN_OPTIMIZERS, OwnAverage, check_optimizer, make_optimizer
from wan_alpha.training.recipes import TrainDiTRecipe
from wan_alpha.weights.io import load_state_dict

HERE = __name__
PLAIN = {"ema_decay": None, "schedule": "constant", "warmup_steps": 2, "max_steps": 8, "checkpoint_every": 1}


class Hoarder(torch.optim.Optimizer):
    """Momentum whose state is of every kind: bytes, doubles, lists, numbers, texts, tensors in a group."""

    def __init__(self, params, lr=1e-3, lists=(0.5, 0.25)):
        super().__init__(params, {"lr": lr, "lists": lists, "total": torch.zeros((), dtype=torch.float64), "k": 0})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            group["k"] += 1
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state |= {"mean": torch.zeros_like(parameter, dtype=torch.float64), "path": [], "note": "new"}
                state["mean"] = state["mean"] * group["lists"][0] + parameter.grad.double() / 3
                state["bytes"] = (state["mean"] * 1000).to(torch.uint8)
                state["path"] = [*state["path"], float(state["mean"].sum())][-3:]
                state["note"], state["sign"] = "old", bool(state["mean"].sum() > 0)
                group["total"] += state["mean"].abs().sum()
                weight = group["lr"] * sum(state["path"]) / 7 / (1 + float(group["total"]))
                change = state["mean"] + state["bytes"].double() / 256
                parameter.sub_((change * (group["lr"] + weight)).to(parameter))


class Averaging(torch.optim.SGD):
    """Schedule-free in kind: what it gives is an average of what it trains."""

    def __init__(self, params, lr=1e-3, weight_decay=0.0):
        super().__init__(params, lr=lr, momentum=0.9, weight_decay=weight_decay)
        self.param_groups[0]["is_training"] = False

    def _turn(self, weight, is_training):
        for group in self.param_groups:
            assert group["is_training"] != is_training
            for parameter in group["params"]:
                if parameter in self.state:
                    parameter.data.lerp_(self.state[parameter]["momentum_buffer"], weight)
            group["is_training"] = is_training

    def eval(self):
        self._turn(1 - 1 / 0.9, False)

    def train(self):
        self._turn(1 - 0.9, True)

    def step(self, closure=None):
        assert self.param_groups[0]["is_training"]
        return super().step(closure)


OPTIMIZERS = {
    "adamw": {},
    "adamw_8bit": {"optimizer_options": {"min_8bit_size": 16}},
    "prodigy": {"learning_rate": 1.0},
    "schedule_free": {},
    "adafactor": {},
    "torch.optim.SGD": {"optimizer_options": {"momentum": 0.9, "nesterov": True}},
    "torch.optim.Adam": {"optimizer_options": {"amsgrad": True, "betas": [0.8, 0.9]}},
    "torch.optim.NAdam": {},
    "torch.optim.RMSprop": {"optimizer_options": {"centered": True}},
    "torch.optim.Adagrad": {},
    "torch.optim.ASGD": {},
    "torch.optim.Rprop": {"weight_decay": 0.01},
    f"{HERE}.Hoarder": {},
    f"{HERE}.Averaging": {},
}


def newest(folder):
    return max((folder / "checkpoints").glob("step_*"))


def need(name):
    package = KNOWN_OPTIMIZERS.get(name, (None, None))[1]
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns_and_resumes_to_the_last_bit(tmp_path, name):
    need(name)
    changes = PLAIN | {"optimizer": name} | OPTIMIZERS[name]
    straight = train(tmp_path / "straight", **changes, keep_checkpoints=1)
    assert straight.step == 8 and straight.losses[0] != straight.losses[-1]
    for fail_at in (4, 5, 3):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "stopped", ListeningModule(fail_at=fail_at), **changes, keep_checkpoints=1)
    assert train(tmp_path / "stopped", **changes, keep_checkpoints=1).resumed_from == 4
    ours, theirs = everything(tmp_path / "stopped"), everything(tmp_path / "straight")
    assert ours == theirs
    kinds = {value.dtype for value in load_state_dict(newest(tmp_path / "stopped") / "optimizer.safetensors").values()}
    assert (torch.uint8 in kinds) == (name in ("adamw_8bit", f"{HERE}.Hoarder"))


@pytest.mark.parametrize("name", ["schedule_free", f"{HERE}.Averaging"])
def test_a_schedule_free_run_shows_the_average_and_is_not_changed_by_showing(tmp_path, name):
    need(name)
    changes = PLAIN | {"optimizer": name}
    train(tmp_path / "often", **changes)
    seldom = changes | {"checkpoint_every": None, "validate_every": None, "keep_best": None}
    train(tmp_path / "seldom", **seldom)
    often, seldom = everything(tmp_path / "often"), everything(tmp_path / "seldom")
    assert often["model.safetensors"] == seldom["model.safetensors"]
    assert often["optimizer.safetensors"] == seldom["optimizer.safetensors"]
    assert often["final.safetensors"] == seldom["final.safetensors"]
    last = newest(tmp_path / "often")
    trained, final = load_state_dict(last / "model.safetensors"), load_state_dict(tmp_path / "often/final.safetensors")
    exported = load_state_dict(last / "first.safetensors")["w"]
    assert not torch.equal(trained["first.weight"], final["first.weight"])
    assert torch.equal(exported, final["first.weight"])
    # The weights of a finished run that are written again are the same.
    (tmp_path / "often" / "final.safetensors").unlink()
    assert train(tmp_path / "often", **changes).was_finished
    assert (tmp_path / "often" / "final.safetensors").read_bytes() == often["final.safetensors"]


def test_the_average_is_the_optimizers_own_and_the_way_back_exact():
    parameters = {"w": torch.nn.Parameter(torch.randn(50, generator=torch.Generator().manual_seed(0)))}
    optimizer = make_optimizer(settings(optimizer=f"{HERE}.Averaging"), parameters.values())
    for step in range(3):
        parameters["w"].grad = torch.cos(parameters["w"].detach() + step)
        optimizer.step()
    before = parameters["w"].detach().clone()
    expected = before.lerp(optimizer.state[parameters["w"]]["momentum_buffer"], 1 - 1 / 0.9)
    with OwnAverage(optimizer, parameters).in_place_of_weights():
        assert torch.equal(parameters["w"], expected)
    assert torch.equal(parameters["w"], before) and optimizer.param_groups[0]["is_training"]


def test_state_of_every_kind_comes_back():
    def made():
        generator = torch.Generator().manual_seed(0)
        parameters = {name: torch.nn.Parameter(torch.randn(3, 4, generator=generator)) for name in ("a", "b/c")}
        return parameters, make_optimizer(settings(optimizer=f"{HERE}.Hoarder"), parameters.values())

    parameters, optimizer = made()
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    tensors, values = split_state(optimizer, parameters)
    assert {value.dtype for value in tensors.values()} == {torch.float64, torch.uint8}
    fresh_parameters, fresh = made()
    restore_state(fresh, fresh_parameters, tensors, values)
    again, values_again = split_state(fresh, fresh_parameters)
    assert values_again == values and again.keys() == tensors.keys()
    assert all(again[key].dtype == value.dtype and torch.equal(again[key], value) for key, value in tensors.items())
    assert fresh.param_groups[0]["lists"] == (0.5, 0.25) and fresh.param_groups[0]["k"] == 1


def test_a_checkpoint_of_an_earlier_version_held_tensors_alone():
    parameters = {"w": torch.nn.Parameter(torch.ones(5))}
    optimizer = make_optimizer(settings(), parameters.values())
    parameters["w"].grad = torch.arange(5.0)
    optimizer.step()
    tensors, _ = split_state(optimizer, parameters)
    fresh = make_optimizer(settings(), parameters.values())
    restore_state(fresh, parameters, tensors, {})
    for field, value in optimizer.state[parameters["w"]].items():
        assert torch.equal(fresh.state[parameters["w"]][field], value)
    assert fresh.param_groups[0]["lr"] == 1e-4 and fresh.param_groups[0]["fused"] is True


class Unstorable(torch.optim.SGD):
    def step(self, closure=None):
        super().step(closure)
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["history"] = {1, 2}


def test_state_that_a_checkpoint_cannot_hold_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"Unstorable keeps first.weight/history as set"):
        train(tmp_path, **PLAIN, optimizer=f"{HERE}.Unstorable")


class WithoutDecay(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3):
        super().__init__(params, {"lr": lr})

    def step(self):
        pass


def settings(**changes):
    return TrainingSettings(max_steps=5, **changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"optimizer": "adam"}, r"'adam': no such name; names are adamw, adamw_8bit, .* such as torch.optim.SGD"),
        ({"optimizer": "torch.optim.Adaw"}, "'torch.optim.Adaw': there is no such class"),
        ({"optimizer": "no_such_package.Best"}, "'no_such_package.Best' cannot be imported .*pip install no_such_pack"),
        ({"optimizer": "torch.nn.Linear"}, "that is no torch.optim.Optimizer"),
        ({"optimizer": "torch.optim.Optimizer"}, "refuses|closure"),
        ({"optimizer": "math.pi"}, "that is no torch.optim.Optimizer"),
        ({"optimizer": "torch.optim.LBFGS"}, "its step needs a closure"),
        (
            {"optimizer_options": {"momentum": 0.9}},
            "options.momentum: adamw has no such option; it has betas, eps, ams",
        ),
        ({"optimizer_options": {"lr": 0.9}}, "that is training.learning_rate's to say"),
        ({"optimizer_options": {"betas": [0.9, 1.5]}}, r"'adamw' refuses .*betas = \(0.9, 1.5\).*Invalid beta"),
        ({"optimizer": "torch.optim.SGD", "optimizer_options": {"nesterov": True}}, "Nesterov momentum requires"),
        ({"optimizer": f"{HERE}.WithoutDecay", "weight_decay": 0.1}, "weight_decay = 0.1: .* has none; leave it out"),
        ({"optimizer": f"{HERE}.Averaging", "ema_decay": 0.9}, "averages its weights itself"),
        ({"optimizer": f"{HERE}.Averaging", "schedule": "cosine"}, "takes the place of a schedule"),
    ],
)
def test_what_cannot_train_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_optimizer(settings(**changes))


def test_it_is_refused_before_anything_is_loaded(tmp_path):
    class Untouchable(ToyDataset):
        def __getitem__(self, index):
            raise AssertionError

    with pytest.raises(ConfigError, match="no such name"):
        train(tmp_path / "run", dataset=Untouchable(), optimizer="adam")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name, (_, package) in KNOWN_OPTIMIZERS.items() if package])
def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch, name):
    package = KNOWN_OPTIMIZERS[name][1]

    def not_there(module):
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(optimizers, "import_module", not_there)
    with pytest.raises(ConfigError, match=f"training.optimizer = '{name}' cannot .*pip install {package}"):
        check_optimizer(settings(optimizer=name))


class Stand(torch.optim.SGD):
    """Stands in for Prodigy where that is not installed."""


def test_prodigy_wants_a_rate_of_one(monkeypatch):
    monkeypatch.setattr(optimizers, "find_optimizer", lambda name: Stand)
    with pytest.raises(ConfigError, match=r"learning_rate = 0.0001: prodigy finds its own rate.*give 1"):
        check_optimizer(settings(optimizer="prodigy"))
    check_optimizer(settings(optimizer="prodigy", learning_rate=1.0))


def test_adamw_is_fused_where_the_device_can(monkeypatch):
    parameter = torch.nn.Parameter(torch.zeros(3))
    assert make_optimizer(settings(), [parameter]).defaults["fused"] is True
    assert make_optimizer(settings(optimizer_options={"fused": False}), [parameter]).defaults["fused"] is False
    assert make_optimizer(settings(optimizer_options={"foreach": True}), [parameter]).defaults["fused"] is None

    def refuse(self, params, fused=None, **options):
        if fused:
            raise RuntimeError("`fused=True` requires all the params to be on supported devices")
        torch.optim.Optimizer.__init__(self, params, options)

    monkeypatch.setattr(torch.optim.AdamW, "__init__", refuse)
    assert "fused" not in make_optimizer(settings(), [parameter]).defaults


def test_options_come_from_a_table_or_from_the_command_line(tmp_path):
    (tmp_path / "recipe.toml").write_text(
        'output_dir = "out"\ncache = "cache"\n[model]\nwan = "wan"\n[training]\nmax_steps = 1\n'
        'optimizer = "torch.optim.SGD"\noptimizer_options = {momentum = 0.9, maximize = true, foreach = "none"}\n'
    )
    recipe = load_recipe(TrainDiTRecipe, tmp_path / "recipe.toml")
    made = make_optimizer(recipe.training, [torch.nn.Parameter(torch.zeros(2))])
    assert isinstance(made, torch.optim.SGD) and made.defaults["momentum"] == 0.9 and made.defaults["maximize"]
    assert made.defaults["weight_decay"] == 0.01 and made.defaults["lr"] == 1e-4 and made.defaults["foreach"] is None
    given = {"training.optimizer_options": '{"momentum": 0.5}'}
    assert load_recipe(TrainDiTRecipe, tmp_path / "recipe.toml", given).training.optimizer_options == {"momentum": 0.5}
    with pytest.raises(ConfigError, match="optimizer_options.*not valid JSON"):
        load_recipe(TrainDiTRecipe, tmp_path / "recipe.toml", {"training.optimizer_options": "momentum=1"})
