"""Merging of neighbouring tokens: which become one, what is left alone, and what it saves."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from modeling_fftp import FFTPConfig, FFTPForAudioClassification, FFTPModel
from modeling_fftp.hub.efficiency import multiply_adds
from modeling_fftp.token_merging_fftp import merge_neighbours, restore_tokens


def make_tokens(num_class_tokens, num_rows, steps):
    """(1, tokens, 1): class tokens -1, -2, ...; patch t of row r is 100 r + t."""
    patches = (100 * torch.arange(num_rows)[:, None] + torch.arange(steps)).flatten()
    return torch.cat((-torch.arange(1, num_class_tokens + 1), patches)).float()[None, :, None]


@pytest.mark.parametrize("num_class_tokens", [0, 2])
def test_pairs_along_time_become_their_mean(num_class_tokens):
    tokens = make_tokens(num_class_tokens, 2, 5)
    merged, mask = merge_neighbours(tokens, None, num_class_tokens, 2)
    assert mask is None
    assert merged[0, num_class_tokens:, 0].tolist() == [0.5, 2.5, 4, 100.5, 102.5, 104]
    assert merged[0, :num_class_tokens].equal(tokens[0, :num_class_tokens])


def test_padding_is_no_partner():
    # Three real steps of six in each of two rows.
    mask = torch.tensor([[True, True] + 2 * [True, True, True, False, False, False]])
    merged, merged_mask = merge_neighbours(make_tokens(2, 2, 6), mask, 2, 2)
    assert merged[0][merged_mask[0]].flatten().tolist() == [-1, -2, 0.5, 2, 100.5, 102]
    assert merged_mask.sum() == 6


def test_restored_tokens_are_those_that_they_were_merged_into():
    tokens = merged = make_tokens(1, 2, 7)
    for _ in range(2):
        merged, _ = merge_neighbours(merged, None, 1, 2)
    restored = restore_tokens(merged, 2, tokens.shape[1], 1, 2)
    row = [1.5] * 4 + [5.25] * 3
    assert restored.flatten().tolist() == [-1, *row, *(100 + step for step in row)]


def test_later_layers_see_fewer_tokens_and_the_output_all(make_config):
    model = FFTPModel(make_config(num_hidden_layers=4, token_merge_layers=[1, 3])).eval()
    states = model(torch.randn(1, 100, 128), output_hidden_states=True)
    # 19 patches and two class tokens; a layer after which tokens merge still has them all.
    assert [state.shape[1] for state in states.hidden_states] == [21, 21, 12, 12, 7]
    assert states.last_hidden_state.shape[1] == 21


def test_a_trained_model_can_merge(make_config, tmp_path):
    FFTPForAudioClassification(make_config()).save_pretrained(tmp_path)
    clips = torch.randn(2, 100, 128)
    plain = FFTPForAudioClassification.from_pretrained(tmp_path)(clips).logits
    merging = FFTPForAudioClassification.from_pretrained(tmp_path, token_merge_layers=[1])(clips).logits
    assert (plain - merging).abs().max() > 0
    for nothing in (None, []):
        again = FFTPForAudioClassification.from_pretrained(tmp_path, token_merge_layers=nothing)(clips).logits
        assert (again == plain).all()
    with pytest.raises(StrictDataclassError, match=r"token_merge_layers=\(2,\).*below num_hidden_layers=2"):
        FFTPForAudioClassification.from_pretrained(tmp_path, token_merge_layers=[2])


def test_multiply_adds_after_a_merge_are_half():
    plain, merging = (multiply_adds(FFTPConfig(token_merge_layers=layers), 1000) for layers in (None, [3]))
    # 199 patches become 100, and 2 class tokens stay, in 9 of 12 layers.
    per_layer = 12 * 768**2
    assert plain - merging == 9 * 99 * per_layer
