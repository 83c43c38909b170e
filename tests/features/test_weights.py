import pickle
from pathlib import Path

import pytest
import torch

from features import weights
from features.network import LAYERS, TORCHVISION_INDEX, VGG19_WIDTHS, FeatureNetwork
from features.weights import load_features, load_own_encoder, load_vgg, vgg_at_hand
from utils.errors import UserError

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def torchvision_state(widths=VGG19_WIDTHS):
    network = FeatureNetwork(widths)
    return {
        f"features.{TORCHVISION_INDEX[layer]}.{part}": getattr(conv, part).clone()
        for layer, conv in network.convs.items()
        for part in ("weight", "bias")
    }


def saved(state, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path


def test_given_file(tmp_path):
    state = torchvision_state()
    network = load_vgg(saved({**state, "classifier.0.bias": torch.zeros(3)}, tmp_path / "vgg.pth"))
    assert torch.equal(network.convs["conv2_1"].weight, state["features.5.weight"])
    assert not any(p.requires_grad for p in network.parameters())
    features = network(torch.rand(1, 3, 9, 13))
    assert [tuple(features[n].shape) for n in LAYERS][::4] == [(1, 64, 9, 13), (1, 256, 2, 3)]


def test_wrapped_and_half_precision(tmp_path):
    state = {key: value.half() for key, value in torchvision_state().items()}
    network = load_vgg(saved({"state_dict": state, "epoch": 3}, tmp_path / "vgg.pth"))
    assert network.convs["conv1_1"].weight.dtype == torch.float32


def test_first_layers_suffice_for_first_layers(tmp_path):
    path = saved(torchvision_state(VGG19_WIDTHS[:4]), tmp_path / "vgg.pth")
    network = load_vgg(path, ["conv2_2", "conv1_1"])
    assert set(network(torch.rand(1, 3, 8, 8), ["conv2_2"])) == {"conv2_2"}
    with pytest.raises(ValueError, match="conv3_1"):
        network(torch.rand(1, 3, 8, 8), ["conv3_1"])
    with pytest.raises(UserError, match=r"features\.10\.weight, features\.10\.bias"):
        load_vgg(path)


def test_cache_of_torchvision(tmp_path):
    assert not vgg_at_hand()
    saved(torchvision_state(), tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth")
    assert vgg_at_hand()
    assert load_vgg().name == "vgg19"
    assert load_features("auto").name == "vgg19"


def test_nothing_at_hand_names_the_ways_out(tmp_path):
    assert not vgg_at_hand(tmp_path / "none.pth")
    with pytest.raises(UserError) as caught:
        load_vgg()
    message = str(caught.value)
    for part in ("--vgg_weights", "vgg19-dcbb9e9d.pth", "--features own", "no route to host"):
        assert part in message
    assert "\n" not in message


def test_download(monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *a, **k: torchvision_state())
    assert load_vgg().name == "vgg19"


class Evil:
    def __reduce__(self):
        return (print, ("code was run",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_files_that_are_no_state_dict(tmp_path, capsys):
    files = {name: tmp_path / name for name in ("none", "text", "empty", "cut", "evil", "old")}
    files["text"].write_text("not a checkpoint")
    files["empty"].write_bytes(b"")
    files["cut"].write_bytes(saved(torchvision_state(), files["cut"]).read_bytes()[:5000])
    torch.save({"features.0.weight": Evil()}, files["evil"])
    files["old"].write_bytes(pickle.dumps(Evil()))
    for file in files.values():
        with pytest.raises(UserError, match=file.name):
            load_vgg(file)
    with pytest.raises(UserError, match="Tensor"):
        load_vgg(saved(torch.zeros(3), tmp_path / "tensor"))
    with pytest.raises(UserError, match="weights"):
        load_vgg(tmp_path)
    assert "code was run" not in capsys.readouterr().out


def test_another_network_and_damage(tmp_path):
    state = torchvision_state()
    with pytest.raises(UserError, match=r"features\.5\.weight is \(64, 32, 3, 3\)"):
        own = torchvision_state((64, 32, 64, 64, 128))
        load_vgg(saved({**state, "features.5.weight": own["features.5.weight"]}, tmp_path / "a"))
    with pytest.raises(UserError, match=r"features\.2\.bias"):
        load_vgg(saved({**state, "features.2.bias": torch.full((64,), torch.nan)}, tmp_path / "b"))
    with pytest.raises(UserError, match=r"features\.0\.bias"):
        load_vgg(saved({**state, "features.0.bias": "zero"}, tmp_path / "c"))


def test_own_encoder(monkeypatch, tmp_path):
    path = tmp_path / "own.pth"
    monkeypatch.setattr(weights, "OWN_WEIGHTS", path)
    with pytest.raises(UserError, match=r"own\.pth"):
        load_own_encoder()
    made = FeatureNetwork((32, 32, 64, 64, 128)).convs.state_dict()
    saved({key: value.half() for key, value in made.items()}, path)
    for network in (load_own_encoder(), load_features("own"), load_features("auto")):
        assert network.name == "own"
        torch.testing.assert_close(
            network.convs["conv3_1"].bias, made["conv3_1.bias"], atol=1e-3, rtol=0
        )


def test_choice(tmp_path):
    given = saved(torchvision_state(), tmp_path / "vgg.pth")
    assert load_features("auto", given).name == "vgg19"
    # a file that was asked for is never passed over in silence
    with pytest.raises(UserError, match=r"missing\.pth"):
        load_features("auto", tmp_path / "missing.pth")
    with pytest.raises(UserError, match="--features resnet"):
        load_features("resnet")


def test_real_weights():
    path = SHARED / "weights" / "vgg19_conv1_1-conv3_1.pth"
    if not path.is_file():
        pytest.skip("no weights here")
    features = load_vgg(path)(torch.rand(1, 3, 16, 20))
    assert all(value.isfinite().all() and value.std() > 0.1 for value in features.values())
