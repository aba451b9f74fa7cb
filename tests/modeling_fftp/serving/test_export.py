"""ONNX files: logits equal to torch's at other lengths and batch sizes, and all that a user of the file needs."""

import json
import math
import pickle

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModelForAudioClassification, AutoModelForAudioFrameClassification, pipeline

from modeling_fftp import FFTPConfig, FFTPForAudioClassification, FFTPForAudioFrameClassification, FFTPModel
from modeling_fftp.serving.export import default_file_name, export
from modeling_fftp.serving.onnx_model import FFTPOnnxForAudioClassification, FFTPOnnxForAudioFrameClassification
from modeling_fftp.stream_fftp import FFTPStream
from tests.support import BACKBONES, GEOMETRIES, needs_compiler, perturb

SHAPES = [(1, 100), (3, 250), (2, 37), (1, 8), (2, 3)]


def save(model_class, config, extractor, folder):
    torch.manual_seed(0)
    model = perturb(model_class(config).eval())
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return model


def compare(model, path):
    session = onnxruntime.InferenceSession(path)
    for batch, frames in SHAPES:
        features, mask = torch.randn(batch, frames, 128), torch.ones(batch, frames, dtype=torch.long)
        mask[-1, (2 * frames + 1) // 3 :] = 0
        (logits,) = session.run(None, {"input_values": features.numpy(), "attention_mask": mask.numpy()})
        with torch.no_grad():
            expected = model(features, mask).logits.numpy()
        if expected.ndim == 3:
            assert logits.shape == expected.shape
            is_real = np.arange(logits.shape[1]) < model.config.time_patches(mask.sum(dim=1, keepdim=True)).numpy()
            logits, expected = logits[is_real], expected[is_real]
        np.testing.assert_allclose(logits, expected, atol=1e-4)
    return session


@pytest.mark.parametrize(
    ("geometry", "backbone"),
    [
        *(("full-frequency", backbone) for backbone in ("ast", "bi-bi", "convnext")),
        *(("square", backbone) for backbone in ("ast", "fo-bi", "merging", "convnext")),
    ],
)
def test_logits_equal_torch_at_other_lengths_and_batch_sizes(make_config, extractor, tmp_path, geometry, backbone):
    config = make_config(**GEOMETRIES[geometry], **BACKBONES[backbone])
    model = save(FFTPForAudioClassification, config, extractor, tmp_path)
    session = compare(model, export(tmp_path))
    shapes = {each.name: each.shape for each in (*session.get_inputs(), *session.get_outputs())}
    mel_bins = model.config.num_mel_bins
    assert shapes == {
        "input_values": ["batch", "frames", mel_bins], "attention_mask": ["batch", "frames"], "logits": ["batch", 4],
    }  # fmt: skip
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == [f"LABEL_{index}" for index in range(4)]
    assert metadata["problem_type"] == "single_label_classification"
    assert json.loads(metadata["feature_extractor"])["mean"] == extractor.mean
    assert json.loads(metadata["patch_size"]) == [*model.config.patch_size]
    assert json.loads(metadata["thresholds"]) is None
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)


@pytest.mark.parametrize("backbone", ["ast", "fo-bi", "convnext"])
def test_int8_weights_give_nearly_the_same_logits(make_config, extractor, tmp_path, generator, backbone):
    model = save(FFTPForAudioClassification, make_config(**BACKBONES[backbone]), extractor, tmp_path)
    small = export(tmp_path, int8=True)
    assert small.name == "model_int8.onnx"
    weights = [item for item in onnx.load(small).graph.initializer if item.data_type == onnx.TensorProto.INT8]
    # The patch embedding is a convolution in torch; those of one channel each stay as they are.
    kinds = torch.nn.Linear, torch.nn.Conv2d
    multiplied = [each for each in model.modules() if isinstance(each, kinds) and getattr(each, "groups", 1) == 1]
    linear = sum(module.weight.numel() for module in multiplied)
    assert sum(math.prod(item.dims) for item in weights if len(item.dims) > 1) == linear
    onnx.checker.check_model(small, full_check=True)
    session = onnxruntime.InferenceSession(small)
    assert session.get_modelmeta().custom_metadata_map.keys() >= {"labels", "problem_type", "feature_extractor"}
    # So many that the error does not depend on which they are.
    features, mask = torch.randn(64, 200, 128, generator=generator), torch.ones(64, 200, dtype=torch.long)
    with torch.no_grad():
        expected = model(features, mask).logits.numpy()
    (logits,) = session.run(None, {"input_values": features.numpy(), "attention_mask": mask.numpy()})
    assert 0 < np.square(logits - expected).mean() ** 0.5 < 0.1 * expected.std()


def test_tokens_merge_in_the_file_alone(make_config, extractor, tmp_path):
    save(FFTPForAudioClassification, make_config(**BACKBONES["merging"]), extractor, tmp_path / "merging")
    merging = FFTPForAudioClassification.from_pretrained(tmp_path / "merging")
    save(FFTPForAudioClassification, make_config(num_hidden_layers=3), extractor, tmp_path / "plain")
    path = export(tmp_path / "plain", token_merge_layers=[1, 2])
    assert path.name == "model_merged.onnx"
    session = compare(merging, path)
    assert session.get_modelmeta().custom_metadata_map["token_merge_layers"] == "[1, 2]"
    # And the other way round: the model merges, the file does not.
    plain = FFTPForAudioClassification.from_pretrained(tmp_path / "plain")
    compare(plain, export(tmp_path / "merging", tmp_path / "model.onnx", token_merge_layers=[]))
    assert default_file_name(int8=True, is_merged=True) == "model_int8_merged.onnx"


@pytest.mark.parametrize("backbone", ["ast", "fo-bi", "convnext"])
def test_a_file_has_the_stride_that_was_asked_for(make_config, extractor, tmp_path, speech, backbone):
    save(FFTPForAudioClassification, make_config(**BACKBONES[backbone]), extractor, tmp_path)
    path = export(tmp_path, time_stride=10)
    assert path.name == "model_stride10.onnx"
    compare(FFTPForAudioClassification.from_pretrained(tmp_path, time_stride=10), path)
    model = FFTPOnnxForAudioClassification.from_pretrained(tmp_path, path.name)
    tag = pipeline("audio-tagging", model=model, feature_extractor=extractor, device="cpu")
    assert tag(speech, time_stride=10) == tag(speech)
    for opened in (model, FFTPOnnxForAudioClassification(path, FFTPConfig.from_pretrained(tmp_path))):
        with pytest.raises(ValueError, match=r"time_stride=5: .* has 10; `fftp export --time_stride 5` writes"):
            opened(torch.zeros(1, 50, 128), time_stride=5)


def test_patches_that_stretch_are_exported(make_config, extractor, tmp_path):
    save(FFTPForAudioClassification, make_config(stretch_patches=True), extractor, tmp_path)
    path = export(tmp_path, time_stride=20)
    compare(FFTPForAudioClassification.from_pretrained(tmp_path, time_stride=20), path)


@pytest.mark.parametrize("task", ["audio-classification", "audio-tagging"])
def test_pipelines_run_onnx_files(make_config, extractor, tmp_path, speech, caplog, task):
    model = save(FFTPForAudioClassification, make_config(), extractor, tmp_path)
    export(tmp_path)
    onnx_model = FFTPOnnxForAudioClassification.from_pretrained(tmp_path, num_threads=1)
    clips = [{"raw": clip, "sampling_rate": 16000} for clip in (speech, speech[:7000])]
    answers = [
        pipeline(task, model=each, feature_extractor=extractor, device="cpu")(clips, batch_size=2)
        for each in (model, onnx_model)
    ]
    assert "not supported" not in caplog.text
    if task == "audio-tagging":
        answers = [[answer["labels"] for answer in given] for given in answers]
    for expected, given in zip(*answers, strict=True):
        scores = {item["label"]: item["score"] for item in expected}
        assert {item["label"]: item["score"] for item in given} == pytest.approx(scores, abs=1e-5)
    features = torch.randn(1, 60, 128)
    assert pickle.loads(pickle.dumps(onnx_model)).num_threads == 1
    assert isinstance(AutoModelForAudioClassification.from_config(make_config()), FFTPForAudioClassification)
    assert onnx_model(features.bfloat16()).logits.dtype == torch.float32
    torch.testing.assert_close(onnx_model(features).logits, model(features).logits, atol=1e-4, rtol=1e-4)


def test_files_hear_a_stream(make_config, extractor, tmp_path, speech):
    causal = {"mamba_variant": "fo-fo", "pooling": "mean", "use_absolute_position_embeddings": False}
    model = save(FFTPForAudioClassification, make_config(backbone="mamba", **causal), extractor, tmp_path)
    export(tmp_path)
    stream = FFTPStream(FFTPOnnxForAudioClassification.from_pretrained(tmp_path), extractor, memory_seconds=0.5)
    answers = stream.push(speech[:16000])
    # onnxruntime keeps no state: it looks at windows.
    end = round(answers[-1].seconds * 16000)
    heard = extractor(speech[end - 49 * 160 - 400 : end], sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        expected = model(**heard).logits.softmax(dim=-1)[0]
    torch.testing.assert_close(answers[-1].scores, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(("int8", "tolerance"), [(False, 1e-5), (True, 0.03)])
def test_audio_tagging_runs_files_of_frame_classifiers(
    make_config, extractor, tmp_path, speech, caplog, backbone, int8, tolerance
):
    config = make_config(**BACKBONES[backbone], problem_type="multi_label_classification", thresholds={"LABEL_1": 0.4})
    model = save(FFTPForAudioFrameClassification, config, extractor, tmp_path)
    path = export(tmp_path, int8=int8)
    onnx_model = FFTPOnnxForAudioFrameClassification.from_pretrained(tmp_path, path.name)
    # Longer than a window, and shorter: what a batch pads.
    clips = [{"raw": clip, "sampling_rate": 16000} for clip in (speech, speech[:7000])]
    answers = [
        pipeline("audio-tagging", model=each, feature_extractor=extractor, device="cpu")(
            clips, batch_size=2, window_seconds=0.6, return_windows=True
        )
        for each in (model, onnx_model)
    ]
    assert "not supported" not in caplog.text
    for expected, given in zip(*answers, strict=True):
        assert len(given["windows"]) == len(expected["windows"])
        for one, other in zip(expected["windows"], given["windows"], strict=True):
            assert other["scores"] == pytest.approx(one["scores"], abs=tolerance)
            assert (other["start"], other["end"]) == (one["start"], one["end"])
    assert answers[0][0]["timeline"]
    assert isinstance(AutoModelForAudioFrameClassification.from_config(config), FFTPForAudioFrameClassification)


def test_a_file_of_another_model_is_refused(make_config, extractor, tmp_path):
    config = make_config()
    save(FFTPForAudioFrameClassification, config, extractor, tmp_path)
    path = export(tmp_path)
    with pytest.raises(ValueError, match=r"logits of 3 dimensions.*clip classifier 2 dimensions"):
        FFTPOnnxForAudioClassification(path, config)
    with pytest.raises(ValueError, match=r"has 4 labels.*config.json has 5 labels"):
        FFTPOnnxForAudioClassification(path, make_config(num_labels=5))
    with pytest.raises(OSError, match=r"model_int8\.onnx"):
        FFTPOnnxForAudioClassification.from_pretrained(tmp_path, "model_int8.onnx")
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        export(tmp_path, tmp_path / "nowhere" / "model.onnx")
    FFTPModel(config).save_pretrained(tmp_path / "headless")
    with pytest.raises(ValueError, match="holds FFTPModel; expected a model with a head"):
        export(tmp_path / "headless")


def test_a_file_of_other_weights_is_refused(make_config, extractor, tmp_path):
    model = save(FFTPForAudioClassification, make_config(), extractor, tmp_path)
    export(tmp_path)
    FFTPOnnxForAudioClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        model.classifier.dense.bias.add_(1.0)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="made of other weights"):
        FFTPOnnxForAudioClassification.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    FFTPOnnxForAudioClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize("backbone", ["ast", "fo-bi", "merging", "convnext"])
def test_frame_classifiers_keep_their_steps(make_config, extractor, tmp_path, backbone):
    config = make_config(problem_type="multi_label_classification", **BACKBONES[backbone])
    model = save(FFTPForAudioFrameClassification, config, extractor, tmp_path)
    compare(model, export(tmp_path, tmp_path / "frames.onnx"))


@pytest.mark.parametrize("backbone", ["ast", "fo-bi", "bi-bi", "convnext"])
def test_exporter_of_transformers(make_config, tmp_path, backbone):
    exporters = pytest.importorskip("transformers.exporters.exporter_onnx", reason="needs transformers' exporters")
    torch.manual_seed(0)
    model = FFTPForAudioClassification(make_config(**BACKBONES[backbone])).eval()
    mask = torch.ones(2, 100, dtype=torch.long)
    mask[1, 60:] = 0
    batch = {"input_values": torch.randn(2, 100, 128), "attention_mask": mask}
    exported = exporters.OnnxExporter().export(model, batch, config=exporters.OnnxConfig(dynamic=True))
    batch = {name: torch.cat((value, value), dim=1)[:1] for name, value in batch.items()}
    with torch.no_grad():
        torch.testing.assert_close(exported(**batch)["logits"], model(**batch).logits, atol=1e-5, rtol=1e-5)
    exported.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"model.onnx", "model.onnx.data"}


def test_weights_of_gigabytes_lie_beside_the_graph(make_config, extractor, tmp_path, monkeypatch):
    model = save(FFTPForAudioClassification, make_config(), extractor, tmp_path)
    monkeypatch.setattr(torch.onnx._internal.exporter._onnx_program, "_LARGE_MODEL_THRESHOLD", 1)
    compare(model, export(tmp_path))
    assert (tmp_path / "model.onnx.data").stat().st_size > 100_000
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize("backbone", ["ast", "bi-bi", "convnext"])
def test_users_quantise_files_themselves(make_config, extractor, tmp_path, backbone):
    model = save(FFTPForAudioClassification, make_config(**BACKBONES[backbone]), extractor, tmp_path)
    quantize_dynamic(export(tmp_path), tmp_path / "own.onnx", weight_type=QuantType.QInt8, reduce_range=True)
    features, mask = torch.randn(2, 130, 128), torch.ones(2, 130, dtype=torch.long)
    given = {"input_values": features.numpy(), "attention_mask": mask.numpy()}
    (logits,) = onnxruntime.InferenceSession(tmp_path / "own.onnx").run(None, given)
    expected = model(features, mask).logits.detach().numpy()
    assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > 0.9


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backbone", ["ast", "merging", "convnext"])
def test_the_older_exporter_takes_models_too(make_config, batch, tmp_path, backbone):
    config = make_config(**BACKBONES[backbone], attn_implementation="eager", return_dict=False)
    model = perturb(FFTPForAudioClassification(config).eval())
    axes = {name: {0: "batch", 1: "frames"} for name in batch}
    torch.onnx.export(
        model, tuple(batch.values()), tmp_path / "old.onnx", dynamo=False, input_names=[*batch], dynamic_axes=axes
    )
    session = onnxruntime.InferenceSession(tmp_path / "old.onnx")
    longer = {name: torch.cat((value.flip(0), value), dim=1)[:2] for name, value in batch.items()}
    longer["attention_mask"][:, :100] = 1
    (logits,) = session.run(None, {name: value.numpy() for name, value in longer.items()})
    np.testing.assert_allclose(logits, model(**longer)[0].detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("model_class", [FFTPForAudioClassification, FFTPForAudioFrameClassification])
@pytest.mark.parametrize("backbone", ["ast", "convnext"])
def test_graphs_divide_no_integers(make_config, batch, model_class, backbone):
    """OpenVINO rounds the quotients, and took half a patch for a whole one."""
    model = model_class(make_config(**BACKBONES[backbone], position_stride=7)).eval()
    program = torch.export.export(model, (), batch)
    divisions = [node for node in program.graph.nodes if "div" in str(node.target)]
    assert divisions
    assert all(node.meta["val"].is_floating_point() for node in divisions)


@needs_compiler
def test_exported_programs_hold_operators_of_torch_alone(make_config):
    """So they run where this package is not installed."""
    model = FFTPForAudioClassification(make_config(backbone="mamba")).eval()
    program = torch.export.export(model, (torch.randn(1, 100, 128),))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [target for target in targets if target.startswith("fftp")]
    assert "scan" in targets
