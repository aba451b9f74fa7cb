"""LoRA by PEFT: every adapted module learns, an adapter survives its folder, and merging changes no logits."""

import pytest
import torch
from peft import LNTuningConfig, LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import TrainingArguments, pipeline

from feature_extraction import FFTPFeatureExtractor, SpecMask, SpecMaskDataCollator
from modeling_fftp import FFTPForAudioClassification
from modeling_fftp.training.trainer import FFTPTrainer
from tests.support import BACKBONES

TARGETS = {
    "all-linear": "all-linear",
    "patches": ["projection"],
    "time steps": ["dt_proj", "x_proj"],
}


def build(config):
    torch.manual_seed(0)
    return FFTPForAudioClassification(config)


@pytest.mark.parametrize("initial", [True, "pissa"])
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("targets", TARGETS)
def test_what_is_adapted_learns_is_saved_and_merges(make_config, batch, tmp_path, backbone, targets, initial):
    config = make_config(**BACKBONES[backbone])
    if targets == "time steps" and config.backbone != "mamba":
        pytest.skip("only a Mamba has time steps")
    if targets == "patches" and initial == "pissa":
        pytest.skip("PEFT has PiSSA for linear layers alone")
    build(config).save_pretrained(tmp_path / "base")
    with torch.no_grad():
        before = build(config).eval()(**batch).logits
    settings = LoraConfig(
        r=4, target_modules=TARGETS[targets], modules_to_save=["classifier"], init_lora_weights=initial
    )
    model = get_peft_model(build(config), settings)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(**batch).logits, before, atol=1e-5, rtol=1e-5)
    adapted = [module for module in model.modules() if isinstance(module, LoraLayer)]
    # A whole number for each layer, but for the one patch embedding.
    assert len(adapted) == 1 if targets == "patches" else len(adapted) % config.num_hidden_layers == 0

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(2):
        model.train()(**batch, labels=torch.tensor([0, 1, 2])).loss.backward()
        optimizer.step()
    silent = [name for name, p in model.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0]
    assert [name for name in silent if "k_proj" not in name] == []
    with torch.no_grad():
        trained = model.eval()(**batch).logits
    assert not torch.allclose(trained, before, atol=1e-3)

    model.save_pretrained(tmp_path / "adapter")
    base = FFTPForAudioClassification.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
        if initial != "pissa":
            torch.testing.assert_close(loaded(**batch).logits, trained, atol=1e-5, rtol=1e-5)
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(**batch).logits, trained, atol=1e-4, rtol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    reloaded = FFTPForAudioClassification.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        torch.testing.assert_close(reloaded(**batch).logits, trained, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_norms_can_be_adapted(make_config, batch, backbone):
    """By the ends of their names, whether they have weights or not."""
    model = build(make_config(**BACKBONES[backbone]))
    adapted = get_peft_model(model, LNTuningConfig(target_modules=["layernorm", "norm"]))
    adapted(**batch, labels=torch.tensor([0, 1, 2])).loss.backward()
    assert any(parameter.grad is not None for name, parameter in adapted.named_parameters() if "ln_tuning" in name)


def test_pipelines_take_adapted_models(make_config, extractor, speech):
    model = get_peft_model(build(make_config()), LoraConfig(target_modules="all-linear"))
    for task in ("audio-tagging", "audio-classification"):
        adapted, plain = (
            pipeline(task, model=each, feature_extractor=extractor, device="cpu")(speech[:16000])
            for each in (model, model.get_base_model())
        )
        assert adapted == plain


@pytest.mark.parametrize("backbone", ["ast", "fo-bi", "convnext"])
def test_trainer_trains_an_adapter(make_config, tmp_path, backbone):
    config = make_config(**BACKBONES[backbone])
    model = get_peft_model(build(config), LoraConfig(r=4, target_modules="all-linear", modules_to_save=["classifier"]))
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    clips = [{"audio": torch.randn(9000).numpy(), "labels": index % 4} for index in range(6)]
    arguments = TrainingArguments(
        tmp_path, num_train_epochs=2, learning_rate=1e-2, use_cpu=True, report_to="none", disable_tqdm=True,
        eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True, gradient_checkpointing=True,
        label_names=["labels"], dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = FFTPTrainer(
        model, arguments, train_dataset=clips, eval_dataset=clips,
        data_collator=SpecMaskDataCollator(FFTPFeatureExtractor(), SpecMask.from_config(config, 0.2)),
    )  # fmt: skip
    trainer.train()
    trainer.save_model(tmp_path / "adapter")
    for name, parameter in model.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name]), name
    loaded = PeftModel.from_pretrained(build(config), tmp_path / "adapter").eval()
    features = torch.randn(1, 100, 128)
    with torch.no_grad():
        torch.testing.assert_close(loaded(features).logits, model.eval()(features).logits, atol=1e-5, rtol=1e-5)
