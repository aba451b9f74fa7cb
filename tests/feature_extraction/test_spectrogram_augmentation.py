"""Changes to spectrograms: what each does, that the generator decides, and that inputs stay as they are."""

import pytest
import torch

from feature_extraction.spectrogram_augmentation import FilterAugment, RandomGain, Stretch, TimeRoll, UniformNoise

TRANSFORMS = [TimeRoll(10), UniformNoise(0.1), RandomGain(0.25), FilterAugment(0.25), Stretch(0.15, 0.15)]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)
def test_generator_decides_and_input_and_padding_stay(transform):
    features = torch.randn(8, 50, 128)
    mask = torch.ones(8, 50, dtype=torch.long)
    mask[3, 20:] = 0
    features[3, 20:] = 7.0
    before = features.clone()
    changed = [transform(features, mask, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert (features == before).all()
    assert (changed[0] == changed[1]).all()
    assert (changed[0] != changed[2]).any()
    assert (changed[0][3, 20:] == 7.0).all()
    assert (changed[0][3, :20] != features[3, :20]).any()
    # Short clips must not see what stands in their padding.
    alone = transform.apply(features[3:4, :20], torch.tensor([20]), **{
        name: value[3:4, :20] if name == "noise" else value[3:4]
        for name, value in transform.draw(features, mask.sum(dim=1), torch.Generator().manual_seed(1)).items()
    })  # fmt: skip
    torch.testing.assert_close(changed[0][3, :20], alone[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)
def test_half_precision_gives_nearly_the_same(transform, dtype):
    features = torch.randn(4, 1000, 1).expand(4, 1000, 128).cumsum(dim=1) / 30
    expected = transform(features, None, torch.Generator().manual_seed(0))
    changed = transform(features.to(dtype), None, torch.Generator().manual_seed(0))
    assert changed.dtype == dtype
    torch.testing.assert_close(changed.float(), expected, atol=0.05, rtol=0.02)


def test_noise_has_a_height_of_its_own_for_each_clip(generator):
    lengths = torch.full((400,), 20)
    noise = UniformNoise(0.5).draw(torch.zeros(400, 20, 16), lengths, generator)["noise"]
    assert noise.min() >= 0
    heights = noise.amax(dim=(1, 2))
    # Uniform in [0, 0.5], and not the same for all.
    assert heights.max() < 0.5
    assert heights.min() < 0.02
    assert heights.mean().item() == pytest.approx(0.25, abs=0.02)
    # Within a clip it is uniform from 0 to its height.
    torch.testing.assert_close(noise.mean(dim=(1, 2)), heights / 2, atol=0.03, rtol=0)


def test_gain_goes_up_and_down(generator):
    offset = RandomGain(0.25).draw(torch.zeros(400, 2, 2), torch.full((400,), 2), generator)["offset"]
    assert offset.shape == (400, 1, 1)
    assert offset.abs().max() <= 0.25
    assert offset.min() < -0.2
    assert offset.max() > 0.2
    assert offset.mean().item() == pytest.approx(0.0, abs=0.03)


def test_roll_is_circular_within_the_clip():
    features = torch.arange(10.0)[None, :, None].expand(2, 10, 4)
    rolled = TimeRoll().apply(features, torch.tensor([10, 6]), shift=torch.tensor([3, -2]))
    assert rolled[0, :, 0].tolist() == [7, 8, 9, 0, 1, 2, 3, 4, 5, 6]
    assert rolled[1, :6, 0].tolist() == [2, 3, 4, 5, 0, 1]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)
def test_a_clip_that_is_all_padding_stays(transform, generator):
    features = torch.randn(2, 50, 128)
    mask = torch.ones(2, 50, dtype=torch.long)
    mask[1] = 0
    assert (transform(features, mask, generator)[1] == features[1]).all()


def test_stretch_moves_peaks_where_the_factors_say():
    features = torch.zeros(1, 100, 128)
    features[0, 50, 80] = 1.0
    factors = {"time_factor": torch.tensor([[0.5]]), "frequency_factor": torch.tensor([[0.8]])}
    stretched = Stretch().apply(features, torch.tensor([100]), anchor=torch.tensor([[20 / 99]]), **factors)
    # A source frame s appears where 20 + (t - 20) * 0.5 = s, a source bin b where f * 0.8 = b.
    assert divmod(stretched[0].argmax().item(), 128) == (80, 100)
    identity = {name: torch.ones(1, 1) for name in factors}
    same = Stretch().apply(features, torch.tensor([100]), anchor=torch.tensor([[0.3]]), **identity)
    torch.testing.assert_close(same, features, atol=1e-4, rtol=0)


def test_stretch_stays_in_its_range():
    draws = Stretch(0.2, 0.1).draw(torch.zeros(1000, 5, 4), torch.full((1000,), 5))
    assert 1 / 1.2 <= draws["time_factor"].min() < 0.9
    assert 1.1 < draws["time_factor"].max() <= 1.2
    assert draws["frequency_factor"].min() >= 1 / 1.1
    assert draws["frequency_factor"].max() <= 1.1


def test_filter_is_piecewise_linear_over_the_bins_and_constant_over_time():
    features = torch.zeros(1, 5, 101)
    knots = {"position": torch.tensor([[0.0, 0.2, 1.0]]), "offset": torch.tensor([[0.1, -0.3, 0.5]])}
    filtered = FilterAugment().apply(features, torch.tensor([5]), **knots)
    expected = torch.cat((torch.linspace(0.1, -0.3, 21), torch.linspace(-0.3, 0.5, 81)[1:])).expand(1, 5, -1)
    torch.testing.assert_close(filtered, expected)
    draws = FilterAugment(0.2, num_bands=3).draw(torch.zeros(1000, 5, 4), torch.full((1000,), 5))
    assert draws["offset"].abs().max() <= 0.2
    assert (draws["position"].diff() >= 0).all()
    assert draws["position"].shape == (1000, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TimeRoll(-1), "max_frames=-1 must be a whole number of at least 0"),
        (lambda: TimeRoll(2.5), "max_frames=2.5 must be a whole number of at least 0"),
        (lambda: UniformNoise(-0.1), r"max_amplitude=-0\.1 must be at least 0"),
        (lambda: RandomGain(float("nan")), "max_offset=nan must be at least 0"),
        (lambda: FilterAugment(num_bands=0), "num_bands=0 must be a whole number of at least 1"),
        (lambda: Stretch(max_time=-1), "max_time=-1 must be at least 0"),
    ],
)
def test_limits_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
