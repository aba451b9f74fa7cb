"""FFTPForPreTraining: what is hidden, that nothing leaks, that padding is nothing, and that it learns."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoModel, AutoModelForAudioClassification, AutoModelForPreTraining

from modeling_fftp import FFTPForAudioClassification, FFTPForPreTraining, FFTPModel
from modeling_fftp.patch_grid_fftp import cut_patches, draw_patch_mask, run_length, unseen_cells
from modeling_fftp.pretraining_fftp import normalised_patches
from tests.support import BACKBONES, GEOMETRIES

KINDS = {name: fields for name, fields in BACKBONES.items() if name != "merging"} | {"mean": {"pooling": "mean"}}
OVERLAPPING = {"patch_size": 16, "frequency_stride": 10, "time_stride": 10}
# Strides below, at and above the width of a patch, and squares that overlap in both directions.
STRIDES = {**GEOMETRIES, "stride 1": {"time_stride": 1}, "stride 10": {"time_stride": 10}, "overlapping": OVERLAPPING}


@pytest.fixture
def build(make_config):
    def make(**fields):
        torch.manual_seed(0)
        return FFTPForPreTraining(make_config(decoder_hidden_size=48, **fields)).eval()

    return make


@pytest.mark.parametrize("fields", STRIDES.values(), ids=STRIDES)
def test_a_share_of_the_real_patches_is_hidden_and_one_is_always_seen(make_config, fields, generator):
    config = make_config(max_length=300, **fields)
    rows, steps = config.patch_grid
    mask = draw_patch_mask(config, [steps, steps // 2, 1], steps, generator)
    grid = mask.unflatten(1, (rows, steps))
    counts = torch.tensor([steps, steps // 2, 1]) * rows
    hidden = grid.flatten(1).sum(dim=1)
    assert hidden.equal(torch.minimum((0.75 * counts).round(), counts - 1).long())
    assert not grid[1, :, steps // 2 :].any()
    assert not grid[2, :, 1:].any()
    assert not draw_patch_mask(config, [steps, steps], steps, generator)[0].equal(mask[0])
    again = torch.Generator().manual_seed(0)
    # Whatever device is the default.
    with torch.device("meta"):
        assert draw_patch_mask(config, [steps, steps // 2, 1], steps, again).equal(mask)


@pytest.mark.parametrize(
    ("patch", "stride", "length"), [(10, 10, 1), (10, 20, 1), (10, 5, 3), (10, 1, 19), (16, 10, 3)]
)
def test_a_run_of_hidden_patches_has_a_patch_that_nobody_shows(patch, stride, length):
    """The frames that neighbours on either side leave unseen, (length + 1) * stride - patch, are those of a patch."""
    assert run_length(patch, stride) == length


def test_what_is_hidden_of_a_clip_does_not_depend_on_its_batch(make_config, generator):
    config = make_config(time_stride=1, max_length=500)
    shares = [
        sum(draw_patch_mask(config, [10], steps, generator)[0, :10].float() for _ in range(400)) / 400
        for steps in (10, 491)
    ]
    assert (shares[0] - shares[1]).abs().max() < 0.15
    # Neither end of a clip is hidden more often.
    assert (shares[0] - shares[0].flip(0)).abs().max() < 0.15


@pytest.mark.parametrize("fields", STRIDES.values(), ids=STRIDES)
def test_the_loss_counts_no_cell_that_the_encoder_sees(build, fields, generator):
    model = build(max_length=200, **fields)
    clip = torch.randn(1, 200, 128)
    steps = model.config.patch_grid[1]
    mask = draw_patch_mask(model.config, [steps], steps, generator)
    cells = unseen_cells(mask, torch.ones_like(mask), model.config)
    assert cells.any()
    # Mark every cell of the spectrogram with its number, and ask which numbers a visible patch holds.
    numbers = cut_patches(torch.arange(200 * 128.0).view(1, 200, 128), model.config)
    assert not set(numbers[~mask].flatten().tolist()) & set(numbers[cells].tolist())
    # So what is counted may change without any change of what is predicted.
    changed = clip.clone().view(-1)
    places = numbers[cells].long()
    changed[places] = torch.randn(len(places))
    with torch.no_grad():
        before, after = (model(x, bool_masked_pos=mask) for x in (clip, changed.view_as(clip)))
    assert before.logits.equal(after.logits)
    assert before.loss != after.loss


@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
def test_hidden_patches_are_predicted_as_the_encoder_alone_sees_the_others(build, fields):
    model, clip = build(time_stride=10, **fields), torch.randn(1, 100, 128)
    mask = torch.ones(1, 10, dtype=torch.bool)
    mask[0, [2, 3, 7]] = False
    with torch.no_grad():
        base = model.fftp
        seen = base(clip, bool_masked_pos=mask)
        # Convolutions know a patch by its place, so the others keep theirs.
        expected = 10 if base.embeddings.keeps_grid else 3 + base.embeddings.num_class_tokens
        assert seen.last_hidden_state.shape[1] == expected
        hidden_changed = clip.clone()
        hidden_changed[:, 40:70] = 5.0
        assert base(hidden_changed, bool_masked_pos=mask).pooler_output.equal(seen.pooler_output)
        # A visible patch reaches every prediction.
        visible_changed = clip.clone()
        visible_changed[:, 75] += 1.0
        first, second = (model(x, bool_masked_pos=mask).logits for x in (clip, visible_changed))
        assert ((first - second).abs().amax(dim=-1) > 0).all()


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
def test_padding_changes_nothing_and_every_parameter_learns(build, batch, fields, geometry):
    model = build(**fields, **geometry)
    loss = model(**batch).loss
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    steps = [model.config.time_patches(length) for length in lengths]
    mask = draw_patch_mask(model.config, steps, max(steps), torch.Generator().manual_seed(1))
    with torch.no_grad():
        together = model(**batch, bool_masked_pos=mask)
        noisy = batch["input_values"].masked_fill(batch["attention_mask"][..., None] == 0, 9.0)
        again = model(noisy, batch["attention_mask"], bool_masked_pos=mask)
        torch.testing.assert_close(again.loss, together.loss)
        # A clip alone, without padding, gives the predictions that it gives in a batch.
        rows = model.config.patch_grid[0]
        own = mask.unflatten(1, (rows, -1))[:1, :, : steps[0]].flatten(1)
        alone = model(batch["input_values"][:1, : lengths[0]], bool_masked_pos=own).logits
        expected = together.logits[:1].unflatten(1, (rows, -1))[:, :, : steps[0]].flatten(1, 2)
        torch.testing.assert_close(alone, expected, atol=1e-5, rtol=0)


def test_targets_are_normalised_patch_by_patch(make_config):
    config = make_config(time_stride=10)
    clip = 3.0 + 2.0 * torch.randn(1, 100, 128)
    patches, mean, deviation = normalised_patches(clip, config)
    torch.testing.assert_close(patches.mean(dim=-1), torch.zeros(1, 10), atol=1e-5, rtol=0)
    torch.testing.assert_close(patches.std(dim=-1, correction=0), torch.ones(1, 10))
    torch.testing.assert_close((patches * deviation + mean)[0, 3].view(128, 10), clip[0, 30:40].T)


@pytest.mark.parametrize(
    "fields", [{}, {"backbone": "mamba"}, BACKBONES["convnext"]], ids=["ast", "mamba", "convnext"]
)
def test_it_learns_to_continue_what_repeats(build, fields):
    model = build(time_stride=10, **fields).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(150):
        # Every patch of a clip is the same noise, so that one tells of all.
        clips = torch.randn(8, 10, 128, generator=generator).repeat(1, 10, 1)
        mask = draw_patch_mask(model.config, [10] * 8, 10, generator)
        loss = model(clips[:, :, :1].expand(-1, -1, 128) + 0.1 * clips, bool_masked_pos=mask).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]


def test_encoder_and_decoder_attend_alike(build):
    model = build(attn_implementation="eager")
    assert model.decoder.config._attn_implementation == "eager"
    model.set_attn_implementation("sdpa")
    assert model.decoder.config._attn_implementation == model.config._attn_implementation == "sdpa"


def test_a_decoder_that_does_not_fit_is_named(build, tmp_path):
    build().save_pretrained(tmp_path)
    _, found = FFTPForPreTraining.from_pretrained(tmp_path, decoder_num_hidden_layers=1, output_loading_info=True)
    assert any(name.startswith("decoder.layers.1.") for name in found["unexpected_keys"])


def test_what_cannot_be_hidden_is_refused(build, make_config):
    with pytest.raises(ValueError, match="token_merge_layers"):
        FFTPForPreTraining(make_config(token_merge_layers=(1,)))
    with pytest.raises(StrictDataclassClassValidationError, match=r"mask_ratio=1\.5 must lie in \(0, 1\)"):
        make_config(mask_ratio=1.5)
    with pytest.raises(StrictDataclassClassValidationError, match="decoder_hidden_size=50 is not a multiple"):
        make_config(decoder_hidden_size=50)
    with pytest.raises(ValueError, match=r"bool_masked_pos has shape \(1, 7\); expected \(1, 10\)"):
        build(time_stride=10)(torch.randn(1, 100, 128), bool_masked_pos=torch.zeros(1, 7, dtype=torch.bool))
    # Nothing is hidden of a clip of one patch, and the loss of nothing is 0, not NaN.
    outputs = build()(torch.randn(2, 6, 128))
    assert outputs.loss == 0
    assert not outputs.mask.any()


@pytest.mark.parametrize(
    "fields", [{}, {"backbone": "mamba"}, BACKBONES["convnext"]], ids=["ast", "mamba", "convnext"]
)
def test_the_folder_opens_as_pretraining_encoder_and_classifier(build, fields, tmp_path):
    model = build(**fields)
    model.save_pretrained(tmp_path / "pretrained")
    clip = torch.randn(1, 100, 128)
    again = AutoModelForPreTraining.from_pretrained(tmp_path / "pretrained")
    assert type(again) is FFTPForPreTraining
    mask = draw_patch_mask(model.config, [model.config.patch_grid[1]], model.config.patch_grid[1])
    with torch.no_grad():
        torch.testing.assert_close(again(clip, bool_masked_pos=mask).logits, model(clip, bool_masked_pos=mask).logits)
        expected = model.fftp(clip).pooler_output
        encoder, found = AutoModel.from_pretrained(tmp_path / "pretrained", output_loading_info=True)
        assert type(encoder) is FFTPModel
        assert not any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        torch.testing.assert_close(encoder(clip).pooler_output, expected)
        classifier = AutoModelForAudioClassification.from_pretrained(tmp_path / "pretrained")
        assert type(classifier) is FFTPForAudioClassification
        torch.testing.assert_close(classifier.fftp(clip).pooler_output, expected)
    # What is trained from it has no need of the decoder's code.
    classifier.save_pretrained(tmp_path / "classifier")
    assert not (tmp_path / "classifier" / "pretraining_fftp.py").exists()
    assert "AutoModelForPreTraining" not in classifier.config.auto_map


def test_the_folder_works_without_the_package(build, tmp_path, run_without_package):
    build().save_pretrained(tmp_path / "pretrained")
    code = """
import os, torch
from transformers import AutoModelForPreTraining
model = AutoModelForPreTraining.from_pretrained(os.environ["FOLDER"], trust_remote_code=True)
print(type(model).__name__, bool(model(torch.randn(2, 100, 128)).loss > 0))
"""
    assert run_without_package(code, FOLDER=str(tmp_path / "pretrained")).split() == ["FFTPForPreTraining", "True"]


def test_sound_is_taken_with_an_extractor(build, extractor):
    model = build(time_stride=10)
    sound, mask = torch.randn(2, 16000) * 0.1, torch.arange(9).expand(2, -1) % 2 == 0
    features = extractor([*sound.numpy()], sampling_rate=16000, return_tensors="pt")
    expected = model(**features, bool_masked_pos=mask).loss
    model.feature_extractor = extractor
    torch.testing.assert_close(model(sound, bool_masked_pos=mask).loss, expected)
