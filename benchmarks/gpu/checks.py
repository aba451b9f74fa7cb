"""Whether a GPU computes what the CPU computes: scans, models, features, masks, pipelines, a training."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers import pipeline
from transformers.utils import is_flash_attn_2_available

from benchmarks.efficiency import RATE, make_sound
from benchmarks.gpu.setting import Setting, make_scan_inputs
from feature_extraction import FFTPFeatureExtractor, SpecMask
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.hub.run_files import read_results, results_of
from modeling_fftp.scan_fftp import bidirectional_scan, selective_scan, selective_scan_ref
from modeling_fftp.training.run import run

LENGTHS = (24, 199, 991, 4000)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Relative root-mean-square errors: sums in another order; sequences rounded on the way in and out; whole models.
SCAN_ERROR = {"float32": 1e-4, "bfloat16": 1e-2}
MODEL_ERROR, BF16_ERROR, FEATURE_ERROR, SCORE_ERROR = 1e-4, 5e-2, 1e-3, 1e-3
BACKBONES = {
    "ast": {},
    "ast, square": {"patch_size": 16, "frequency_stride": 10, "time_stride": 10},
    "mamba, fo-fo": {"backbone": "mamba", "mamba_variant": "fo-fo"},
    "mamba, fo-bi": {"backbone": "mamba", "mamba_variant": "fo-bi"},
    "mamba, bi-bi": {"backbone": "mamba", "mamba_variant": "bi-bi"},
    "convnext": {"backbone": "convnext"},
}
ATTENTIONS = ("sdpa", "flex_attention", "flash_attention_2")
COMPARED = ("fftp.embeddings.patch_embeddings.projection.weight", "classifier.dense.weight")
SHAPE = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 768}


def list_cases(setting: Setting) -> dict[str, Callable[[], dict]]:
    """Checks by name; each gives an error and the largest that is allowed, or says why it was left out."""
    lengths = LENGTHS[:1] if setting.is_tiny else LENGTHS
    cases = {
        f"scan, {dtype}, {length} tokens{', backwards' * reverse}": partial(
            check_scan, setting, dtype, length, reverse
        )
        for dtype in DTYPES
        for length in lengths
        for reverse in (False, True)
    }
    cases |= {f"scan, both directions, {dtype}": partial(check_both_scans, setting, dtype) for dtype in DTYPES}
    cases |= {f"logits and gradients, {name}": partial(check_model, setting, name) for name in BACKBONES}
    cases |= {f"logits in bfloat16, {name}": partial(check_bfloat16, setting, name) for name in BACKBONES}
    cases |= {f"attention, {name}": partial(check_attention, setting, name) for name in ATTENTIONS}
    for check in (check_features, check_masks, check_pipeline, check_device_map, check_training):
        cases[check.__name__.removeprefix("check_").replace("_", " ")] = partial(check, setting)
    # Last, as compiling takes its time.
    return cases | {f"compiled training, {name}": partial(check_compiled, setting, name) for name in BACKBONES}


def compare(results: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], largest: float) -> dict:
    """The largest relative root-mean-square error of several tensors; one that is not finite never passes."""
    errors = {}
    for name, value in expected.items():
        difference = results[name].detach().double().cpu() - value.detach().double().cpu()
        errors[name] = (difference.norm() / (value.double().norm().cpu() + 1e-6)).item()
    worst = max(errors, key=lambda name: errors[name] if errors[name] == errors[name] else float("inf"))
    return {"error": errors[worst], "allowed": largest, "of": worst, "holds": errors[worst] <= largest}


def make_inputs(setting: Setting, dtype: torch.dtype, length: int) -> dict[str, torch.Tensor]:
    """Inputs of a scan that is differentiated."""
    batch, dim, state = (1, 5, 4) if setting.is_tiny else (2, 96, 16)
    inputs = make_scan_inputs(setting.device, batch, dim, length, state, dtype)
    return {name: value.requires_grad_() for name, value in inputs.items()}


def differentiate(scan: Callable, inputs: dict[str, torch.Tensor], **settings) -> dict[str, torch.Tensor]:
    """The output of a scan, and the gradients of all inputs."""
    output = scan(**inputs, delta_softplus=True, **settings)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output.device)
    gradients = torch.autograd.grad((output.float() * weights).sum(), list(inputs.values()))
    return {"output": output, **dict(zip(inputs, gradients, strict=True))}


def check_scan(setting: Setting, dtype: str, length: int, reverse: bool) -> dict:
    """What is chosen on the device, against the naive scan there."""
    inputs = make_inputs(setting, DTYPES[dtype], length)
    expected = differentiate(selective_scan_ref, inputs, reverse=reverse)
    return compare(differentiate(selective_scan, inputs, reverse=reverse), expected, SCAN_ERROR[dtype])


def check_both_scans(setting: Setting, dtype: str) -> dict:
    """Both directions in one call, against two naive scans."""
    inputs = make_inputs(setting, DTYPES[dtype], LENGTHS[0] if setting.is_tiny else LENGTHS[1])
    inputs["A_reverse"] = (1.5 * inputs["A"]).detach().requires_grad_()

    def add(A: torch.Tensor, A_reverse: torch.Tensor, **rest) -> torch.Tensor:  # noqa: N803
        return selective_scan_ref(A=A, **rest) + selective_scan_ref(A=A_reverse, reverse=True, **rest)

    return compare(differentiate(bidirectional_scan, inputs), differentiate(add, inputs), SCAN_ERROR[dtype])


def build_model(name: str, **settings) -> FFTPForAudioClassification:
    """A small model with the same random weights at each call."""
    torch.manual_seed(0)
    return FFTPForAudioClassification(FFTPConfig(**(SHAPE | BACKBONES[name] | settings), num_labels=10))


def make_batch(setting: Setting) -> dict[str, torch.Tensor]:
    """Two clips of other lengths, padded."""
    frames = 120 if setting.is_tiny else 500
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(2, frames, dtype=torch.long)
    mask[1, frames // 2 :] = 0
    return {
        "input_values": torch.randn(2, frames, 128, generator=generator),
        "attention_mask": mask,
        "labels": torch.tensor([1, 2]),
    }


def answer(model: torch.nn.Module, batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Logits and the gradients of the patch embedding and of the head."""
    model = model.to(device)
    output = model(**{name: value.to(device) for name, value in batch.items()})
    output.loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    return {"logits": output.logits} | {name: gradients[name] for name in COMPARED}


def check_model(setting: Setting, name: str) -> dict:
    """Float32 on the device against float32 on the CPU."""
    batch = make_batch(setting)
    expected = answer(build_model(name), batch, torch.device("cpu"))
    return compare(answer(build_model(name), batch, setting.device), expected, MODEL_ERROR)


def check_bfloat16(setting: Setting, name: str) -> dict:
    """Bfloat16 on the device against float32 there."""
    batch = {key: value.to(setting.device) for key, value in make_batch(setting).items() if key != "labels"}
    logits = {}
    for dtype in DTYPES.values():
        model = build_model(name).to(setting.device, dtype).eval()
        with torch.no_grad():
            logits[dtype] = model(**batch | {"input_values": batch["input_values"].to(dtype)}).logits
    return compare({"logits": logits[torch.bfloat16]}, {"logits": logits[torch.float32]}, BF16_ERROR)


def check_compiled(setting: Setting, name: str) -> dict:
    """`torch.compile` of forward and backward, at two lengths, against the same without it."""
    batch, compiled, plain = make_batch(setting), build_model(name), build_model(name)
    compiled.compile(backend="eager" if setting.is_tiny else "inductor", dynamic=True)
    # The second clip is padded in both.
    whole = batch["input_values"].shape[1]
    found, expected = {}, {}
    for frames in (whole * 7 // 10, whole * 6 // 10):
        part = batch | {key: batch[key][:, :frames] for key in ("input_values", "attention_mask")}
        for model, answers in ((compiled, found), (plain, expected)):
            model.zero_grad()
            answers |= {f"{name}, {frames} frames": x for name, x in answer(model, part, setting.device).items()}
    return compare(found, expected, MODEL_ERROR)


def check_attention(setting: Setting, name: str) -> dict:
    """An implementation of attention against the plain one; flash attention computes in bfloat16."""
    if name == "flash_attention_2" and not is_flash_attn_2_available():
        return {"left_out": "flash-attn is not installed"}
    if setting.device.type == "cpu" and name != "sdpa":
        return {"left_out": "for a GPU"}
    is_flash = name == "flash_attention_2"
    dtype = torch.bfloat16 if is_flash else torch.float32
    batch = {key: value.to(setting.device) for key, value in make_batch(setting).items() if key != "labels"}
    logits = {}
    for implementation in ("eager", name):
        model = build_model("ast", attn_implementation=implementation).to(setting.device, dtype).eval()
        with torch.no_grad():
            logits[implementation] = model(**batch | {"input_values": batch["input_values"].to(dtype)}).logits
    return compare({"logits": logits[name]}, {"logits": logits["eager"]}, BF16_ERROR if is_flash else MODEL_ERROR)


def check_features(setting: Setting) -> dict:
    """The extractor on the device against the one on the CPU."""
    sound = torch.from_numpy(make_sound(1.0 if setting.is_tiny else 10.0))
    extract = partial(FFTPFeatureExtractor(), sampling_rate=RATE, return_tensors="pt")
    expected = {"features": extract([sound])["input_values"]}
    moved = FFTPFeatureExtractor().extract_batch([sound.to(setting.device)])["input_values"]
    return compare({"features": moved}, expected, FEATURE_ERROR)


def check_masks(setting: Setting) -> dict:
    """One generator gives the same masks on every device."""
    mask, features = SpecMask(128, 1000, 10, 5), torch.zeros(4, 1000, 128)
    drawn = [
        mask.draw(features.to(device), generator=torch.Generator().manual_seed(3)).float()
        for device in ("cpu", setting.device)
    ]
    return compare({"masks": drawn[1]}, {"masks": drawn[0]}, 0.0)


def check_pipeline(setting: Setting) -> dict:
    """Scores of the tagging pipeline's windows on the device against those on the CPU."""
    scores = {}
    for device in ("cpu", setting.device):
        model = build_model("ast", problem_type="multi_label_classification").eval()
        tag = pipeline("audio-tagging", model=model, feature_extractor=FFTPFeatureExtractor(), device=device)
        rows = tag(make_sound(25.0), return_windows=True)["windows"]
        scores[str(device)] = torch.tensor([row["scores"] for row in rows])
    found = [*scores.values()]
    return compare({"scores": found[-1]}, {"scores": found[0]}, SCORE_ERROR)


def check_device_map(setting: Setting) -> dict:
    """A model that accelerate puts onto the device, or half of it there and half onto the CPU, answers the same."""
    batch = {key: value for key, value in make_batch(setting).items() if key != "labels"}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        whole = build_model("ast").eval()
        whole.save_pretrained(folder)
        place = str(setting.device) if setting.device.type == "cpu" else 0
        names = {name.split(".layers.")[0] for name, _ in whole.named_parameters() if ".layers." in name}
        half = {"": place} | {f"{name}.layers.{index}": "cpu" for name in names for index in (2, 3)}
        results = {}
        for title, device_map in (("all", {"": place}), ("half", half)):
            model = FFTPForAudioClassification.from_pretrained(folder, device_map=device_map)
            results[title] = model(**batch).logits
        return compare(results, dict.fromkeys(results, whole(**batch).logits), MODEL_ERROR)


def check_training(setting: Setting) -> dict:
    """A training with features on the device, and the scores of what it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        for label, frequency in (("low", 300), ("high", 3000)):
            Path(folder, "clips", label).mkdir(parents=True)
            for number in range(16):
                tone = np.sin(2 * np.pi * (frequency + number) * np.arange(RATE // 2) / RATE)
                soundfile.write(Path(folder, "clips", label, f"{number}.wav"), 0.1 * tone, RATE)
        output = Path(folder, "model")
        words = [
            "--dataset_name", Path(folder, "clips"), "--output_dir", output, "--features_on_device", "true",
            "--hidden_size", 48, "--num_hidden_layers", 1, "--num_attention_heads", 3, "--intermediate_size", 96,
            "--num_train_epochs", 20, "--learning_rate", 3e-3, "--per_device_train_batch_size", 8,
            "--validation_fraction", 0.5, "--disable_tqdm", "true",
            "--use_cpu", setting.device.type == "cpu", "--bf16", setting.device.type != "cpu",
        ]  # fmt: skip
        run([*map(str, words)])
        accuracy = read_results(output, results_of("validation"))["validation_accuracy"]
        tag = pipeline("audio-tagging", model=str(output), trust_remote_code=True, device=setting.device)
        best = tag(str(Path(folder, "clips", "low", "0.wav")), top_k=1)["labels"][0]["label"]
    found = {"accuracy": torch.tensor(accuracy), "tagged right": torch.tensor(float(best == "low"))}
    return compare(found, dict.fromkeys(found, torch.tensor(1.0)), SCORE_ERROR)
