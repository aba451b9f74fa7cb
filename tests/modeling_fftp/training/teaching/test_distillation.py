"""Distillation: what a teacher hears, in which order it answers, and what a student makes of it."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch
from datasets import Dataset, load_from_disk
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
    pipeline,
)

from feature_extraction import SpecMaskDataCollator
from feature_extraction.waveform_augmentation import Mixup
from modeling_fftp import FFTPForAudioClassification
from modeling_fftp.training.run import run
from modeling_fftp.training.teaching.distillation import Distillation, Teacher, add_answers
from modeling_fftp.training.teaching.teacher_labels import label
from tests.support import TINY, perturb, run_training

KINDS = ("high", "low", "noise")
NAMES = {"id2label": dict(enumerate(KINDS)), "label2id": {name: index for index, name in enumerate(KINDS)}}


def make_ast():
    sizes = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 48}
    return ASTForAudioClassification(ASTConfig(**sizes, max_length=100, **NAMES)), ASTFeatureExtractor(max_length=100)


def make_wav2vec2():
    config = Wav2Vec2Config(
        hidden_size=48, num_hidden_layers=1, num_attention_heads=3, intermediate_size=48, conv_dim=[16] * 3,
        conv_stride=[5, 4, 4], conv_kernel=[10, 8, 8], num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
        classifier_proj_size=16, **NAMES,
    )  # fmt: skip
    return Wav2Vec2ForSequenceClassification(config), Wav2Vec2FeatureExtractor(sampling_rate=8000)


def make_whisper():
    config = WhisperConfig(
        d_model=48, encoder_layers=1, encoder_attention_heads=3, encoder_ffn_dim=48, max_source_positions=1500, **NAMES
    )
    return WhisperForAudioClassification(config), WhisperFeatureExtractor()


@pytest.fixture
def teacher(tmp_path):
    def make(build=make_ast):
        torch.manual_seed(0)
        model, extractor = build()
        perturb(model).save_pretrained(tmp_path / "teacher")
        extractor.save_pretrained(tmp_path / "teacher")
        return str(tmp_path / "teacher")

    return make


@pytest.mark.parametrize("build", [make_ast, make_wav2vec2, make_whisper])
def test_a_teacher_answers_as_its_own_pipeline_does(teacher, build, speech):
    source = teacher(build)
    clips = [speech[:12000], speech[8000:]]
    answer_for = Teacher(source, 16000)
    answer_for.choose(["noise", "high", "low"])
    logits = answer_for(clips)
    assert logits.shape == (2, 3)
    tag = pipeline("audio-classification", model=source)
    for clip, row in zip(clips, logits, strict=True):
        # The pipeline would resample with another library.
        sound = soxr.resample(clip, 16000, tag.feature_extractor.sampling_rate)
        scores = {answer["label"]: answer["score"] for answer in tag(sound)}
        expected = torch.tensor([scores[name] for name in ("noise", "high", "low")])
        torch.testing.assert_close(row.softmax(dim=0), expected, atol=1e-4, rtol=0)


def test_our_own_models_teach_too(trained, speech):
    logits = Teacher(str(trained), 16000)([speech[:9000], speech])
    tag = pipeline("audio-classification", model=str(trained))
    scores = {answer["label"]: answer["score"] for answer in tag(speech[:9000])}
    torch.testing.assert_close(logits[0].softmax(0), torch.tensor([scores[name] for name in KINDS]), atol=1e-5, rtol=0)


def test_a_teacher_of_other_classes_is_refused(teacher):
    with pytest.raises(ValueError, match=r"does not know 1 of 2 classes, such as 'bell'; it tells apart \['high'"):
        Teacher(teacher(), 16000).choose(["low", "bell"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_teacher_in_half_precision_answers_in_float32(teacher, speech, dtype):
    source = teacher()
    expected = Teacher(source, 16000)([speech])
    ASTForAudioClassification.from_pretrained(source, dtype=dtype).save_pretrained(source)
    answers = [Teacher(source, 16000, dtype=precision)([speech]) for precision in (None, torch.bfloat16)]
    for answer in answers:
        torch.testing.assert_close(answer, expected, atol=0.1, rtol=0)


def test_what_is_no_teacher_is_refused(teacher, tmp_path, speech):
    source = teacher()
    model = ASTForAudioClassification.from_pretrained(source)
    weights = load_file(Path(source, "model.safetensors"))
    headless = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
    save_file(headless, Path(source, "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"weights are missing.*classifier"):
        Teacher(source, 16000)
    with pytest.raises(FileNotFoundError, match="neither a folder or a file here nor a Hub id"):
        Teacher(str(tmp_path / "nowhere"), 16000)
    with torch.no_grad():
        model.classifier.dense.weight.fill_(float("nan"))
    model.save_pretrained(source)
    with pytest.raises(ValueError, match=r"teacher is damaged: classifier\.dense\.weight"):
        Teacher(source, 16000)


@pytest.mark.parametrize("option", ["--teacher", "--model_name_or_path"])
def test_what_is_not_there_is_missed_before_clips_are_decoded(clip_folder, tmp_path, option):
    with pytest.raises(FileNotFoundError, match="neither a folder or a file here nor a Hub id"):
        run_training(tmp_path / "out", "--dataset_name", clip_folder, option, tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()


def test_clips_that_a_teacher_cannot_hear_are_named(teacher, speech):
    with pytest.raises(ValueError, match="cannot hear clips of 5 to 5 samples"):
        Teacher(teacher(make_wav2vec2), 16000)([speech[:10]])


def test_memory_that_runs_out_is_not_blamed_on_clips(teacher, speech):
    loaded = Teacher(teacher(), 16000)

    def run_out(*_):
        raise torch.OutOfMemoryError("out of memory")

    loaded.model.register_forward_pre_hook(run_out)
    with pytest.raises(torch.OutOfMemoryError):
        loaded([speech])


def test_a_teacher_of_the_other_kind_is_refused(trained):
    teacher = Teacher(str(trained), 16000)
    teacher.refuse_other_kind(is_multi_label=False)
    with pytest.raises(ValueError, match="is for one class per clip, the data for several"):
        teacher.refuse_other_kind(is_multi_label=True)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_loss_has_the_gradient_of_the_divergence(temperature):
    student = torch.randn(5, 7, requires_grad=True)
    teacher = torch.randn(5, 7)
    loss = Distillation(1.0, temperature).loss(student, teacher, is_multi_label=False)
    divergence = nn.functional.kl_div(
        (student / temperature).log_softmax(dim=-1), (teacher / temperature).softmax(dim=-1), reduction="batchmean"
    )
    (gradient,) = torch.autograd.grad(loss, student)
    (expected,) = torch.autograd.grad(temperature**2 * divergence, student)
    torch.testing.assert_close(gradient, expected)
    # It is smallest where the student answers as the teacher does, up to a constant.
    same = (teacher + 1.0).requires_grad_()
    assert torch.autograd.grad(Distillation(1.0, temperature).loss(same, teacher, False), same)[0].abs().max() < 1e-6


def test_of_several_labels_each_is_learned():
    teacher = torch.tensor([[3.0, -3.0, 2.0]])
    student = teacher.clone().requires_grad_()
    loss = Distillation().loss(student, teacher, is_multi_label=True)
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-6
    assert Distillation().loss(-teacher, teacher, True) > loss


@pytest.fixture(scope="module")
def contrary(trained, tmp_path_factory):
    """A teacher that calls every class by the name of the next."""
    folder = tmp_path_factory.mktemp("contrary") / "teacher"
    shutil.copytree(trained, folder)
    model = FFTPForAudioClassification.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.classifier.dense.parameters():
            parameter.copy_(parameter.roll(1, dims=0))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("share", "lowest", "highest"), [(0.95, 0.0, 0.3), (0.05, 0.9, 1.0)])
@pytest.mark.parametrize("options", [["--mixup_probability", 0.5], ["--mixup_probability", 0, "--roll_frames", 3]])
def test_a_student_believes_its_teacher_in_its_share(
    contrary, clip_folder, tmp_path, caplog, options, share, lowest, highest
):
    caplog.set_level(logging.INFO)
    run_training(
        tmp_path, "--dataset_name", clip_folder, "--teacher", contrary, "--teacher_share", share,
        "--teacher_temperature", 2, "--time_stride", 10, "--num_train_epochs", 12, "--learning_rate", "2e-3", *options,
    )  # fmt: skip
    accuracy = json.loads((tmp_path / "validation_results.json").read_text())["validation_accuracy"]
    assert lowest <= accuracy <= highest
    assert "MiB of weights" in caplog.text
    assert ("answers once for each of 36 clips" in caplog.text) == (options[1] == 0)
    assert json.loads((tmp_path / "recipe.json").read_text())["teacher"] == contrary.name


def test_a_teacher_hears_the_sound_that_the_student_hears(trained, clip_folder, tmp_path, monkeypatch):
    heard = []
    answer = Teacher.__call__

    def listen(self, waveforms):
        heard.extend(np.asarray(wave) for wave in waveforms)
        return answer(self, waveforms)

    monkeypatch.setattr(Teacher, "__call__", listen)
    run_training(
        tmp_path, "--dataset_name", clip_folder, "--teacher", trained, "--mixup_probability", 1, "--max_seconds", 0.3
    )
    # The first batches are measured in time; after them every clip is cut to 0.3 s, and mixed with another.
    assert [len(wave) for wave in heard[-36:]] == [4800] * 36
    assert all(abs(wave.mean()) < 1e-3 for wave in heard[-36:])


def test_answers_are_kept_with_features_too(contrary, clip_folder, tmp_path):
    options = ("--dataset_name", clip_folder, "--teacher", contrary, "--mixup_probability", 0)
    for name, caching in (("cached", ("--cache_features", "true")), ("anew", ())):
        run_training(tmp_path / name, *options, *caching)
    cached, anew = (load_file(tmp_path / name / "model.safetensors") for name in ("cached", "anew"))
    for name in cached:
        torch.testing.assert_close(cached[name], anew[name], atol=1e-4, rtol=0)


def test_sound_without_labels_is_enough(trained, clip_folder, tmp_path):
    run(
        [*TINY, "--dataset_name", str(clip_folder / "train"), "--output_dir", str(tmp_path / "out"), "--teacher",
         str(trained), "--teacher_only", "true", "--num_train_epochs", "12", "--learning_rate", "2e-3",
         "--validation_fraction", "0.3"]
    )  # fmt: skip
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["label2id"] == NAMES["label2id"]
    agreement = json.loads((tmp_path / "out" / "validation_results.json").read_text())["validation_accuracy"]
    assert agreement >= 0.8
    card = (tmp_path / "out" / "README.md").read_text()
    assert "the teacher's answers" in card


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--teacher_only", "true"], "--teacher_only is about a teacher; name it with --teacher"),
        (["--teacher_share", "0.3"], "--teacher_share is about a teacher"),
        (["--teacher", "x", "--do_train", "false", "--model_name_or_path", "y"], "only evaluates"),
        (
            ["--teacher", "x", "--teacher_only", "true", "--max_train_samples", "4"],
            "--max_train_samples has no effect",
        ),
        (["--teacher", "x", "--teacher_only", "true", "--teacher_share", "0.4"], "--teacher_share has no effect"),
        (
            ["--teacher", "x", "--teacher_only", "true", "--label_smoothing_factor", "0.1"],
            "--label_smoothing_factor has no effect",
        ),
        (["--teacher", "x", "--teacher_share", "0"], "must lie in"),
        (["--teacher", "x", "--teacher_temperature", "0"], r"0.0 must lie in \(0, inf\)"),
        (["--teacher", "x", "--teacher_only", "true", "--streaming", "true"], "--streaming has no effect"),
    ],
)
def test_contradictions_are_refused(tmp_path, options, message):
    with pytest.raises(SystemExit, match=message):
        run_training(tmp_path, "--dataset_name", "x", *options)


def test_a_teacher_that_finds_nothing_measures_nothing(make_config, extractor, speech, tmp_path):
    model = FFTPForAudioClassification(make_config(problem_type="multi_label_classification"))
    torch.nn.init.constant_(model.classifier.dense.bias, -9.0)
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    clips = Dataset.from_dict({"audio": [speech[:9000]]}).with_format("numpy")
    with pytest.raises(ValueError, match="the teacher finds none of its labels in the 1 clips to measure on"):
        label(clips, Teacher(str(tmp_path), 16000))


def test_labels_are_those_that_the_teacher_s_pipeline_reports(make_config, extractor, speech, tmp_path):
    config = make_config(problem_type="multi_label_classification")
    names = [*config.id2label.values()]
    # Scores of 0.27 and 0.73.
    config.thresholds = {names[0]: 0.2, names[2]: 0.9}
    model = FFTPForAudioClassification(config)
    torch.nn.init.zeros_(model.classifier.dense.weight)
    model.classifier.dense.bias.data = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    teacher = Teacher(str(tmp_path), 16000)
    teacher.choose(names[::-1])
    clips = Dataset.from_dict({"audio": [speech[:9000]]}).with_format("numpy")
    assert label(clips, teacher)["labels"][:].tolist() == [[1, 0, 0, 1]]


def test_thresholds_of_other_models_mean_something_else(tmp_path):
    config = ASTConfig(
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        num_labels=3,
        thresholds=[0.1],
    )
    ASTForAudioClassification(config).save_pretrained(tmp_path)
    ASTFeatureExtractor().save_pretrained(tmp_path)
    assert Teacher(str(tmp_path), 16000).thresholds == [0.5] * 3


def test_cached_answers_are_those_of_the_clips(trained, speech):
    clips = Dataset.from_dict({"audio": [speech[:9000], speech[:12000]], "labels": [0, 1]}).with_format("numpy")
    teacher = Teacher(str(trained), 16000)
    answered = add_answers(clips, teacher)
    torch.testing.assert_close(torch.from_numpy(answered[1]["teacher_logits"]), teacher([speech[:12000]])[0])


def test_cached_answers_are_for_the_classes_that_are_chosen(trained, speech, tmp_path):
    Dataset.from_dict({"audio": [speech[:9000]]}).save_to_disk(tmp_path)
    clips = load_from_disk(tmp_path).with_format("numpy")
    teacher = Teacher(str(trained), 16000)
    before = teacher.answer(clips)[0]["teacher_logits"]
    teacher.choose(teacher.known[::-1])
    np.testing.assert_array_equal(teacher.answer(clips)[0]["teacher_logits"], before[::-1])


def test_answers_do_not_go_with_sound_that_changes(extractor, speech):
    example = {"audio": speech, "labels": 0, "teacher_logits": np.zeros(2, np.float32)}
    collator = SpecMaskDataCollator(extractor, mixup=Mixup(), num_labels=2)
    with pytest.raises(ValueError, match="what a teacher said of the sound as it was"):
        collator.augment([example, example])
    assert collator([example])["teacher_logits"].shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "value"), [("teacher_trust_remote_code", True), ("push_to_hub", True), ("hub_model_id", "else/words")]
)
def test_what_to_trust_and_to_publish_is_not_for_a_recipe(tmp_path, name, value):
    (tmp_path / "recipe.json").write_text(json.dumps({"teacher": "x", name: value}))
    with pytest.raises(SystemExit, match=f"--{name} is for the command line, not for a recipe"):
        run([str(tmp_path / "recipe.json"), "--dataset_name", "x", "--output_dir", str(tmp_path)])
