import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from features import texture_encoder, vgg
from features.registry import NETWORKS, load_features
from features.vgg import CONVOLUTIONS, cached_weights, load_vgg, torchvision_indices
from features.weights import read_weights
from utils.errors import UserError

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
FIVE = ["conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1"]
DEEP = {"vgg19": ["relu5_4"], "vgg16": ["relu5_3"]}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.fixture
def narrow(monkeypatch):
    """VGGs of their depth and with few channels, so that deep files are small."""
    for name, channels in CONVOLUTIONS.items():
        monkeypatch.setitem(vgg.CONVOLUTIONS, name, {c: n // 32 for c, n in channels.items()})


def torchvision_state(name="vgg19", deepest="conv3_1"):
    """Random weights of the first convolutions, with torchvision's names."""
    channels = CONVOLUTIONS[name]
    state, inputs = {}, 3
    for conv, index in torchvision_indices(channels).items():
        state[f"features.{index}.weight"] = torch.randn(channels[conv], inputs, 3, 3)
        state[f"features.{index}.bias"] = torch.randn(channels[conv])
        inputs = channels[conv]
        if conv == deepest:
            break
    return state


def saved(state, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def test_indices_are_torchvisions():
    found = {name: torchvision_indices(channels) for name, channels in CONVOLUTIONS.items()}
    assert list(found["vgg16"].values()) == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert list(found["vgg19"].values()) == [
        *(0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
    ]
    assert found["vgg16"]["conv4_1"] == 17 and found["vgg19"]["conv4_1"] == 19


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_given_file(tmp_path, suffix):
    state = {**torchvision_state(), "classifier.0.bias": torch.zeros(3)}
    network = load_vgg(saved(state, tmp_path / f"vgg{suffix}"), FIVE)
    assert torch.equal(network.convs["conv2_1"].weight, state["features.5.weight"])
    assert not any(p.requires_grad for p in network.parameters()) and not network.training
    features = network(torch.rand(1, 3, 9, 13), FIVE)
    assert [tuple(features[n].shape) for n in FIVE][::4] == [(1, 64, 9, 13), (1, 256, 2, 3)]


def test_features_before_and_after_the_relu(tmp_path):
    network = load_vgg(saved(torchvision_state(), tmp_path / "vgg.pth"), ["relu3_1"])
    features = network(torch.rand(1, 3, 16, 20), ["relu2_1", "conv2_1", "relu3_1", "conv3_1"])
    for block in (2, 3):
        conv, relu = (features[f"{kind}{block}_1"] for kind in ("conv", "relu"))
        assert conv.min() < 0
        assert torch.equal(relu, conv.relu())
    assert set(network(torch.rand(1, 3, 16, 20), ["relu1_2"])) == {"relu1_2"}


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_whole_depth(narrow, tmp_path, name):
    path = saved(torchvision_state(name, None), tmp_path / "vgg.safetensors")
    network = load_features("auto", path, layers=DEEP[name])
    assert network.name == name
    assert list(network.convs) == list(CONVOLUTIONS[name])
    (features,) = network(torch.rand(1, 3, 33, 50), DEEP[name]).values()
    assert features.shape == (1, 16, 2, 3)


def test_which_vgg_a_file_holds(narrow, tmp_path):
    def loaded(name, holds, deepest, layers=FIVE):
        path = saved(torchvision_state(holds, deepest), tmp_path / "vgg.pth")
        return load_features(name, path, layers=layers).name

    for holds in ("vgg16", "vgg19"):
        assert loaded("auto", holds, "conv4_1") == holds
        assert loaded(holds, holds, "conv4_1") == holds
    # both have convolutions of these indices and shapes up to conv3_3
    for holds in ("vgg16", "vgg19"):
        assert loaded("auto", holds, "conv3_1") == "vgg19"
        assert loaded("vgg16", holds, "conv3_3", ["conv3_3"]) == "vgg16"
    for asked, holds in (("vgg16", "vgg19"), ("vgg19", "vgg16")):
        with pytest.raises(UserError, match=f"holds {holds}, but {asked} was asked for"):
            loaded(asked, holds, "conv4_1")
    batch_norm = {f"features.{i}.weight": torch.zeros(3) for i in (0, 1, 3, 4)}
    with pytest.raises(UserError, match="not the weights of VGG-16 or VGG-19"):
        load_features("auto", saved(batch_norm, tmp_path / "bn.pth"), layers=FIVE)


def test_wrapped_and_half_precision(tmp_path):
    state = {key: value.half() for key, value in torchvision_state().items()}
    network = load_vgg(saved({"state_dict": state, "epoch": 3}, tmp_path / "vgg.pth"), FIVE)
    assert network.convs["conv1_1"].weight.dtype == torch.float32


def test_only_what_is_asked_for_is_needed(tmp_path):
    path = saved(torchvision_state(deepest="conv2_2"), tmp_path / "vgg.pth")
    network = load_vgg(path, ["conv2_1", "conv1_1"])
    assert list(network.convs) == ["conv1_1", "conv1_2", "conv2_1"]
    with pytest.raises(ValueError, match=r"vgg19 has no layers \['conv2_2'\]"):
        network(torch.rand(1, 3, 8, 8), ["conv2_2"])


def test_layers_deeper_than_the_file(tmp_path):
    path = saved(torchvision_state(), tmp_path / "vgg.pth")
    words = r"vgg\.pth: has convolutions up to conv3_1, and conv4_1 is needed; give a deeper file"
    with pytest.raises(UserError, match=words):
        load_vgg(path, ["conv1_1", "relu4_1"])
    with pytest.raises(UserError, match="conv3_4: no layer of vgg16"):
        load_vgg(path, ["conv3_4"], "vgg16")
    with pytest.raises(UserError, match="--features own: has convolutions up to conv3_1"):
        load_features("own", layers=["conv3_3"])


@pytest.fixture
def any_content(monkeypatch):
    """Files that are called by a digest may hold other weights."""
    monkeypatch.setattr("features.weights._sha256", lambda file: file.stem[-8:])


def test_cache_of_torchvision(tmp_path, any_content):
    assert load_features("auto", layers=FIVE).name == "own"
    for name in ("vgg19", "vgg16"):  # auto takes VGG-16 where there are both
        path = saved(torchvision_state(name), cached_weights(name))
        assert path.parent == tmp_path / "hub" / "checkpoints"
        assert load_features(name, layers=FIVE).name == name
        assert load_features("auto", layers=FIVE).name == name


@pytest.mark.parametrize(("name", "file"), [("vgg19", "dcbb9e9d"), ("vgg16", "397923af")])
def test_nothing_at_hand_names_the_ways_out(name, file):
    with pytest.raises(UserError) as caught:
        load_features(name, layers=FIVE)
    message = str(caught.value)
    for part in ("--vgg_weights", f"{name}-{file}.pth", "--features own", "no route to host"):
        assert part in message
    assert "\n" not in message


def test_download(monkeypatch, any_content):
    def download(url, target, hash_prefix):
        assert (url.rpartition("/")[2], hash_prefix) == ("vgg19-dcbb9e9d.pth", "dcbb9e9d")
        torch.save(torchvision_state(), target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert load_features("vgg19", layers=FIVE).name == "vgg19"


class Evil:
    def __reduce__(self):
        return (print, ("code was run",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_files_that_are_no_state_dict(tmp_path, capsys):
    content = {
        "text": b"not a checkpoint",
        "empty": b"",
        "cut": saved(torchvision_state(), tmp_path / "whole").read_bytes()[:5000],
        "junk": b"\x80\x02junk",
        "old": pickle.dumps(Evil()),
        "bad.safetensors": b"\xff" * 100,
        "cut.safetensors": saved({"a": torch.zeros(99)}, tmp_path / "b.safetensors").read_bytes()[
            :-9
        ],
    }
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    torch.save({"features.0.weight": Evil()}, tmp_path / "evil")
    for name in (*content, "evil", "none"):
        with pytest.raises(UserError, match=name) as caught:
            read_weights(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="Tensor"):
        read_weights(saved(torch.zeros(3), tmp_path / "tensor"))
    with pytest.raises(UserError, match="no such file"):
        read_weights(tmp_path)
    assert "code was run" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.filterwarnings("ignore:.*weights_only")
def test_no_flipped_bit_goes_unseen(tmp_path):
    state = {f"features.{i}.weight": torch.randn(8, 8, 3, 3) for i in range(3)}
    path = saved(state, tmp_path / "vgg.pth")
    good = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(8 * len(good), (200,), generator=generator).tolist()
    refused = 0
    for bit in bits:
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            found = read_weights(path)
        except UserError:
            refused += 1
        else:  # in what is not read: padding, dates, flags
            assert found.keys() == state.keys()
            assert all(torch.equal(found[key], state[key]) for key in state)
    assert refused > 100


def test_legacy_files_have_no_checksum_and_are_read(tmp_path):
    state, path = torchvision_state(), tmp_path / "vgg.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    network = load_vgg(path, FIVE)
    assert torch.equal(network.convs["conv3_1"].weight, state["features.10.weight"])


def test_another_network_and_damage(tmp_path):
    state = torchvision_state()
    with pytest.raises(UserError, match=r"features\.5\.weight is \(128, 32, 3, 3\)"):
        wrong = {**state, "features.5.weight": torch.zeros(128, 32, 3, 3)}
        load_vgg(saved(wrong, tmp_path / "a"), FIVE)
    with pytest.raises(UserError, match=r"features\.2\.bias holds NaN"):
        load_vgg(
            saved({**state, "features.2.bias": torch.full((64,), torch.nan)}, tmp_path / "b"), FIVE
        )
    with pytest.raises(UserError, match=r"features\.0\.bias missing"):
        load_vgg(saved({**state, "features.0.bias": "zero"}, tmp_path / "c"), FIVE)


def test_own_encoder(monkeypatch, tmp_path):
    network = load_features("own", layers=["relu2_1", "conv3_1"])
    assert network.name == "own"
    assert network(torch.rand(1, 3, 8, 8), ["conv3_1"])["conv3_1"].shape == (1, 128, 2, 2)
    monkeypatch.setattr(texture_encoder, "WEIGHTS", tmp_path / "encoder.pth")
    with pytest.raises(UserError, match=r"encoder\.pth"):
        load_features("own", layers=FIVE)


def test_choice(tmp_path):
    # a file that was asked for is never passed over in silence
    for name in ("auto", "vgg16", "vgg19"):
        with pytest.raises(UserError, match=r"missing\.pth: no such file"):
            load_features(name, tmp_path / "missing.pth", layers=FIVE)
    with pytest.raises(UserError, match="--features resnet: unknown; take one of auto, vgg19"):
        load_features("resnet", layers=FIVE)


def test_a_new_network_is_a_line(monkeypatch):
    monkeypatch.setitem(NETWORKS.places, "new", f"{load_vgg.__module__}:load_vgg")
    with pytest.raises(UserError, match="no weights given"):
        load_features("new", layers=FIVE)


@pytest.mark.parametrize(
    ("file", "name", "layers"),
    [
        ("vgg19_conv1_1-conv3_1.pth", "vgg19", FIVE),
        ("vgg16_caffe_conv_fp16.safetensors", "vgg16", ["relu3_3", "conv4_1", "relu5_3"]),
    ],
)
def test_real_weights(file, name, layers):
    path = SHARED / "weights" / file
    if not path.is_file():
        pytest.skip("no weights here")
    network = load_features("auto", path, layers=layers)
    assert network.name == name
    features = network(torch.rand(1, 3, 48, 64), layers)
    assert all(value.isfinite().all() and value.std() > 0.1 for value in features.values())
