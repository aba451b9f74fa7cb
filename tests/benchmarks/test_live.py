"""The benchmark of live sound: its hops are those of the stream."""

from benchmarks import live


def test_every_hop_is_timed_and_equals_the_whole():
    measured = live.measure_hops(live.MODELS["Mamba, from its state"] | {"num_hidden_layers": 2}, minutes=0.1)
    assert measured["offline_difference"] < 1e-5
    assert len(measured["memory_mib"]) >= 6
