"""The selective scan: every implementation against the naive one, in outputs, last state and all gradients."""

import os
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch

from modeling_fftp import FFTPModel, kernel_cpu_fftp, scan_cpu_fftp, scan_fftp, scan_triton_fftp
from modeling_fftp.scan_fftp import bidirectional_scan, selective_scan, selective_scan_ref
from tests.support import ROOT, needs_compiler, needs_cpp_compiler, perturb

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
# Relative root-mean-square error. In bfloat16 the sequences are rounded on the way in and out.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
SHAPES = [(2, 5, 1, 16), (3, 17, 2, 3), (1, 40, 63, 16), (2, 33, 199, 16), (1, 7, 991, 18)]

triton_cpu = pytest.mark.skipif(
    scan_fftp.triton is None or os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs Triton, and TRITON_INTERPRET=1 where there is no GPU",
)
IMPLEMENTATIONS = [
    "torch",
    pytest.param("cpu", marks=needs_compiler),
    "export",
    pytest.param("triton", marks=triton_cpu),
]
# Compiles both kernels for a GPU that need not be there, and prints what they add to pointers.
COMPILE_FOR_A_GPU = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from modeling_fftp.scan_triton_fftp import _backward_kernel, _forward_kernel

constants = {"STATE": 16, "BLOCK_STATE": 16, "BLOCK_DIM": 32, "CHUNK": 32, "HAS_D": True, "HAS_Z": True,
             "HAS_BIAS": True, "SOFTPLUS": True, "REVERSE": False}
for kernel, more in ((_forward_kernel, {"SAVE": True}), (_backward_kernel, {})):
    given = constants | more
    signature = {name: "*fp32" if name.endswith("_ptr") else "i32" for name in kernel.arg_names}
    signature |= dict.fromkeys(given, "constexpr")
    code = triton.compile(ASTSource(kernel, signature, constexprs=given), target=GPUTarget("cuda", 90, 32))
    print("\\n".join(line for line in code.asm["ttir"].splitlines() if "tt.addptr" in line))
"""


def make_inputs(batch, dim, length, state, dtype=torch.float32, channels_last=False):
    generator = torch.Generator().manual_seed(length)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    inputs = {
        "u": draw(batch, dim, length), "delta": draw(batch, dim, length), "A": -4 * draw(dim, state).abs() - 0.1,
        "B": draw(batch, state, length), "C": draw(batch, state, length), "D": draw(dim),
        "z": draw(batch, dim, length), "delta_bias": draw(dim),
    }  # fmt: skip
    for name, tensor in inputs.items():
        if tensor.ndim == 3:
            tensor = tensor.to(dtype)
            tensor = tensor.transpose(1, 2).contiguous().transpose(1, 2) if channels_last else tensor
        inputs[name] = tensor.requires_grad_()
    return inputs


def evaluate(scan, inputs, **settings):
    """Output, last state, and the gradients of all inputs."""
    output, last = scan(**inputs, return_last_state=True, **settings)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(tensor.shape, generator=generator) for tensor in (output, last)]
    loss = (output.float() * weights[0]).sum() + (last * weights[1]).sum()
    gradients = torch.autograd.grad(loss, list(inputs.values()))
    return {"output": output, "last": last, **dict(zip(inputs, gradients, strict=True))}


def assert_close(results, expected, tolerance):
    for name, value in expected.items():
        assert results[name].dtype == value.dtype, name
        assert results[name].shape == value.shape, name
        difference, scale = (results[name].double() - value.double()).norm(), value.double().norm()
        assert difference <= tolerance * (scale + 1e-3), f"{name}: {difference / (scale + 1e-3):.1e}"


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_equals_the_naive_scan(implementation, shape, reverse, dtype):
    if implementation == "triton":
        # The interpreter is slow: one program, and the long sequences only on demand.
        if shape[2] > (199 if dtype == torch.float32 else 63) and "FFTP_SLOW_TESTS" not in os.environ:
            pytest.skip("takes minutes in Triton's interpreter; FFTP_SLOW_TESTS=1 runs it")
        shape = (1, min(shape[1], scan_triton_fftp.BLOCK_DIM), *shape[2:])
    inputs = make_inputs(*shape, dtype)
    expected = evaluate(selective_scan_ref, inputs, delta_softplus=True, reverse=reverse)
    results = evaluate(selective_scan, inputs, delta_softplus=True, reverse=reverse, implementation=implementation)
    assert_close(results, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("missing", [("D",), ("z",), ("delta_bias",), ("D", "z", "delta_bias")], ids="-".join)
@pytest.mark.parametrize("delta_softplus", [False, True])
def test_options(implementation, missing, delta_softplus):
    inputs = {name: value for name, value in make_inputs(2, 19, 40, 16).items() if name not in missing}
    if not delta_softplus:
        inputs["delta"] = inputs["delta"].detach().abs().requires_grad_()
        inputs.pop("delta_bias", None)
    expected = evaluate(selective_scan_ref, inputs, delta_softplus=delta_softplus)
    results = evaluate(selective_scan, inputs, delta_softplus=delta_softplus, implementation=implementation)
    assert_close(results, expected, TOLERANCE[torch.float32])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_strides_change_nothing(implementation):
    expected = evaluate(selective_scan, make_inputs(2, 33, 63, 16), delta_softplus=True, implementation=implementation)
    results = evaluate(
        selective_scan,
        make_inputs(2, 33, 63, 16, channels_last=True),
        delta_softplus=True,
        implementation=implementation,
    )
    assert_close(results, expected, TOLERANCE[torch.float32])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS[:2])
def test_autocast_changes_nothing(implementation):
    inputs = make_inputs(2, 19, 40, 16)
    expected = evaluate(selective_scan, inputs, delta_softplus=True, implementation=implementation)
    with torch.autocast("cpu", torch.bfloat16):
        results = evaluate(selective_scan, inputs, delta_softplus=True, implementation=implementation)
    assert_close(results, expected, TOLERANCE[torch.float32])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_extreme_values_stay_finite(implementation):
    inputs = make_inputs(1, 16, 40, 16)
    with torch.no_grad():
        inputs["delta"][:, ::2] = 60.0
        inputs["delta"][:, 1::2] = -60.0
        inputs["z"][..., ::2] = 100.0
        inputs["z"][..., 1::2] = -100.0
    expected = evaluate(selective_scan_ref, inputs, delta_softplus=True)
    results = evaluate(selective_scan, inputs, delta_softplus=True, implementation=implementation)
    assert all(value.isfinite().all() for value in results.values())
    assert_close(results, expected, 1e-4)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_two_directions_are_the_sum_of_two_scans(implementation, dtype):
    inputs = make_inputs(2, 33, 50, 16, dtype, channels_last=True)
    A_reverse = (inputs["A"].detach() / 2).requires_grad_()
    sequences = [inputs["u"], inputs["delta"], inputs["A"], A_reverse, *list(inputs.values())[3:]]
    forwards = selective_scan_ref(**inputs, delta_softplus=True)
    backwards = selective_scan_ref(**(inputs | {"A": A_reverse}), delta_softplus=True, reverse=True)
    weight = torch.randn(forwards.shape, generator=torch.Generator().manual_seed(1))
    outputs = {
        "expected": forwards.float() + backwards.float(),
        "results": bidirectional_scan(*sequences, delta_softplus=True, implementation=implementation).float(),
    }
    names = ("u", "delta", "A", "A_reverse", "B", "C", "D", "z", "delta_bias")
    expected, results = (
        {"output": output, **dict(zip(names, torch.autograd.grad((output * weight).sum(), sequences), strict=True))}
        for output in outputs.values()
    )
    assert_close(results, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_every_implementation_takes_a_first_state(implementation, reverse, dtype):
    inputs = make_inputs(2, 5, 40, 3, dtype)
    inputs["initial_state"] = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(2)).requires_grad_()
    names = [*NAMES, "initial_state"]
    expected = evaluate(selective_scan_ref, inputs, delta_softplus=True, reverse=reverse)
    results = evaluate(selective_scan, inputs, delta_softplus=True, reverse=reverse, implementation=implementation)
    assert len(expected) == 2 + len(names)
    assert_close(results, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_pieces_of_a_sequence_are_the_whole(implementation):
    inputs = make_inputs(2, 5, 40, 3)
    whole, last = selective_scan_ref(**inputs, delta_softplus=True, return_last_state=True)
    state, pieces = None, []
    for start, end in ((0, 1), (1, 20), (20, 21), (21, 40)):
        piece = {name: tensor[:, :, start:end] if tensor.ndim == 3 else tensor for name, tensor in inputs.items()}
        output, state = selective_scan(
            **piece, delta_softplus=True, return_last_state=True, implementation=implementation, initial_state=state
        )
        pieces.append(output)
    torch.testing.assert_close(torch.cat(pieces, dim=2), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, last, rtol=1e-4, atol=1e-5)


def test_reverse_is_the_scan_of_the_flipped_sequence():
    inputs = make_inputs(2, 20, 50, 16)
    flipped = {name: x.flip(2) if x.ndim == 3 else x for name, x in inputs.items()}
    expected, last = selective_scan(**flipped, delta_softplus=True, return_last_state=True)
    results, reverse_last = selective_scan(**inputs, delta_softplus=True, reverse=True, return_last_state=True)
    torch.testing.assert_close(results, expected.flip(2), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reverse_last, last, atol=1e-5, rtol=1e-5)


def test_same_numbers_twice():
    results = [evaluate(selective_scan, make_inputs(3, 70, 100, 16), delta_softplus=True) for _ in range(2)]
    assert all((results[0][name] == results[1][name]).all() for name in results[0])


def test_threads_change_nothing():
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(evaluate(selective_scan, make_inputs(3, 70, 100, 16), delta_softplus=True))
    finally:
        torch.set_num_threads(threads)
    assert all((results[0][name] == results[1][name]).all() for name in results[0])


@needs_compiler
def test_cpu_kernel_is_a_proper_operator():
    tensors = {name: tensor.detach() for name, tensor in make_inputs(2, 20, 40, 16, channels_last=True).items()}
    tensors["A"] = tensors["A"][None]
    tensors |= {name: tensors[name].transpose(1, 2) for name in ("B", "C")}
    inputs = [*(tensor.contiguous().requires_grad_() for tensor in tensors.values()), True, False, True]
    torch.library.opcheck(scan_cpu_fftp._forward, inputs, test_utils=("test_schema", "test_faketensor"))


@needs_compiler
@pytest.mark.filterwarnings("ignore")
def test_a_trace_has_gradients_also_where_it_was_made_without():
    inputs = make_inputs(2, 20, 40, 16)
    names, given = [*inputs], tuple(tensor.detach() for tensor in inputs.values())

    def scan(*tensors):
        return selective_scan(**dict(zip(names, tensors, strict=True)), delta_softplus=True, implementation="cpu")

    traced = torch.jit.trace(scan, given, check_trace=False)
    expected = torch.autograd.grad(scan(*inputs.values()).sum(), [*inputs.values()])
    for own, other in zip(
        torch.autograd.grad(traced(*inputs.values()).sum(), [*inputs.values()]), expected, strict=True
    ):
        torch.testing.assert_close(own, other)


@needs_compiler
def test_backward_without_what_forward_keeps_is_refused():
    inputs = [tensor.detach() for tensor in make_inputs(2, 20, 40, 16).values()]
    with pytest.raises(RuntimeError, match=r"the scan kept nothing for backward\(\)"):
        scan_cpu_fftp._backward(inputs[0], None, inputs[0].new_empty(0), *inputs, True, False)


@needs_cpp_compiler
def test_compiles_to_one_graph():
    inputs = make_inputs(2, 20, 40, 16)
    compiled = torch.compile(selective_scan, fullgraph=True)
    expected = evaluate(selective_scan, inputs, delta_softplus=True)
    assert_close(evaluate(compiled, inputs, delta_softplus=True), expected, TOLERANCE[torch.float32])


@pytest.mark.skipif(scan_fftp.triton is None, reason="needs Triton")
def test_triton_counts_in_64_bits():
    """Batches may hold more than 2^31 numbers; what one program keeps of a chunk holds few."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILE_FOR_A_GPU]
    printed = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    additions = printed.splitlines()
    assert len(additions) > 30
    assert [line for line in additions if "i32" in line and "%room" not in line and "%rows" not in line] == []


@pytest.mark.parametrize(("device", "expected"), [("cuda:1", torch.cuda.device), ("cpu", nullcontext)])
def test_triton_launches_on_the_device_of_the_tensors(device, expected):
    context = scan_triton_fftp._launching_on(torch.device(device))
    assert isinstance(context, expected)
    assert getattr(context, "idx", 1) == 1


@pytest.mark.parametrize("moved", NAMES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_tensors_on_several_devices_are_refused(implementation, moved):
    inputs = {name: tensor.detach() for name, tensor in make_inputs(1, 5, 9, 4).items()}
    inputs[moved] = inputs[moved].to("meta")
    with pytest.raises(ValueError, match="several devices, \\['cpu', 'meta'\\]"):
        selective_scan(**inputs, implementation=implementation)


@needs_compiler
def test_operators_themselves_refuse_several_devices():
    u, A, B = torch.zeros(1, 8, 9), torch.zeros(1, 8, 4), torch.zeros(1, 9, 4)
    with pytest.raises(ValueError, match="several devices"):
        scan_cpu_fftp._forward(u, u, A.to("meta"), B, B, None, None, None, True, False, True)
    _, last, saved = scan_cpu_fftp._forward(u, u, A, B, B, None, None, None, True, False, True)
    with pytest.raises(ValueError, match="several devices"):
        scan_cpu_fftp._backward(u.to("meta"), last, saved, u, u, A, B, B, None, None, None, True, False)


def test_exports_take_what_they_are_told_to():
    class Scan(torch.nn.Module):
        def forward(self, inputs):
            return selective_scan(**inputs, implementation="nonsense")

    inputs = {name: tensor.detach() for name, tensor in make_inputs(1, 4, 8, 4).items()}
    with pytest.raises(ValueError, match="implementation='nonsense' is unknown"):
        torch.export.export(Scan(), (inputs,))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS[:2])
def test_exports(implementation):
    class Scan(torch.nn.Module):
        def forward(self, inputs):
            return selective_scan(**inputs, delta_softplus=True, reverse=True, implementation=implementation)

    inputs = {name: tensor.detach() for name, tensor in make_inputs(2, 20, 40, 16).items()}
    exported = torch.export.export(Scan(), (inputs,)).module()
    torch.testing.assert_close(exported(inputs), Scan()(inputs))


@needs_compiler
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_kernel_rounds_to_the_nearest_bfloat16(channels_last):
    """It computes in float32, so nothing but reading and writing differs."""
    halved = make_inputs(2, 33, 63, 16, torch.bfloat16, channels_last)
    inputs = {name: tensor.detach().float() for name, tensor in halved.items()}
    results = selective_scan(**halved, delta_softplus=True, implementation="cpu")
    assert torch.equal(results, selective_scan(**inputs, delta_softplus=True, implementation="cpu").bfloat16())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS[:2])
def test_derivatives_that_an_implementation_does_not_have_are_refused(implementation):
    inputs = {name: tensor.detach() for name, tensor in make_inputs(1, 5, 9, 4).items()}
    u = inputs.pop("u")
    with pytest.raises(ValueError, match="no derivatives but backward"):
        torch.func.jvp(lambda u: selective_scan(u, **inputs, implementation=implementation), (u,), (u,))


@needs_compiler
def test_auto_takes_the_kernel_on_a_cpu():
    assert scan_fftp.choose_implementation("auto", "cpu") == "cpu"


def test_double_precision_is_computed_in_that(make_config):
    features = torch.randn(2, 60, 128, dtype=torch.float64)
    outputs = []
    for implementation in ("auto", "reference"):
        torch.manual_seed(0)
        model = FFTPModel(make_config(backbone="mamba", scan_implementation=implementation)).double().eval()
        with torch.no_grad():
            outputs.append(perturb(model)(features).last_hidden_state)
    torch.testing.assert_close(*outputs, atol=1e-12, rtol=1e-12)


def test_without_a_compiler_one_warning_and_plain_torch(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    warnings = []
    monkeypatch.setattr(kernel_cpu_fftp.logger, "warning_once", warnings.append)
    kernel_cpu_fftp.load_kernel.cache_clear()
    try:
        inputs = make_inputs(1, 5, 9, 4)
        expected = selective_scan_ref(**inputs)
        for _ in range(2):
            torch.testing.assert_close(selective_scan(**inputs), expected, atol=1e-5, rtol=1e-5)
        with pytest.raises(ImportError, match="apt-get install gcc"):
            selective_scan(**inputs, implementation="cpu")
        assert scan_fftp.choose_implementation("auto", "cpu") == "torch"
    finally:
        kernel_cpu_fftp.load_kernel.cache_clear()
    assert len(warnings) == 1
    assert "no C compiler" in warnings[0]


def test_without_a_home_folder_one_warning_and_plain_torch(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(kernel_cpu_fftp.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    warnings = []
    monkeypatch.setattr(kernel_cpu_fftp.logger, "warning_once", warnings.append)
    kernel_cpu_fftp.load_kernel.cache_clear()
    try:
        assert scan_fftp.choose_implementation("auto", "cpu") == "torch"
    finally:
        kernel_cpu_fftp.load_kernel.cache_clear()
    assert len(warnings) == 1


@needs_compiler
def test_compiler_with_a_wrapper(monkeypatch, tmp_path):
    """`CC="ccache gcc"`: the first word is the program, the others are its arguments."""
    wrapper = tmp_path / "wrapper"
    wrapper.write_text('#!/bin/sh\necho "$1" > "$0.log"\nexec "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CC", f"{wrapper} {os.environ.get('CC') or 'cc'}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernel_cpu_fftp._build("tiny", "int answer(void) { return 42; }").exists()
    assert (tmp_path / "wrapper.log").read_text().split() == os.environ["CC"].split()[1:]


@pytest.mark.parametrize("compiler", ["gcc 'unclosed", "no-such-compiler --fast"])
def test_a_compiler_that_is_no_command_is_named(monkeypatch, tmp_path, compiler):
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"unclosed|no-such-compiler"):
        kernel_cpu_fftp._build("tiny", "int answer(void) { return 42; }")


@needs_compiler
def test_a_build_is_for_one_machine_and_one_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    builds = {kernel_cpu_fftp._build("tiny", "int answer(void) { return 42; }")}
    monkeypatch.setattr(kernel_cpu_fftp, "_machine", lambda: "another processor")
    builds.add(kernel_cpu_fftp._build("tiny", "int answer(void) { return 42; }"))
    builds.add(kernel_cpu_fftp._build("tiny", "int answer(void) { return 43; }"))
    assert len(builds) == 3


@needs_compiler
def test_broken_build_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(subprocess.CalledProcessError):
        kernel_cpu_fftp._build("broken", "not C")
    assert list((tmp_path / "fftp").iterdir()) == []


def test_cache_folder_is_private(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernel_cpu_fftp._cache_folder().stat().st_mode & 0o777 == 0o700
    (tmp_path / "fftp").chmod(0o777)
    with pytest.raises(PermissionError, match="written by others"):
        kernel_cpu_fftp._cache_folder()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"B": torch.zeros(2, 3, 9)}, r"B has shape \(2, 3, 9\); with u \(2, 5, 9\) it must be \(2, 4, 9\)"),
        ({"delta": torch.zeros(2, 5, 8)}, r"delta has shape \(2, 5, 8\)"),
        ({"D": torch.zeros(4)}, r"D has shape \(4,\).*\(5,\)"),
        ({"implementation": "cuda"}, "implementation='cuda' is unknown"),
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=message):
        selective_scan(**(make_inputs(2, 5, 9, 4) | change))


@pytest.mark.parametrize("implementation", ["torch", "cpu"])
@pytest.mark.parametrize("shape", [(0, 5, 9, 4), (2, 5, 0, 4)])
def test_nothing_to_scan_is_refused(implementation, shape):
    with pytest.raises(ValueError, match="expected at least one clip, channel and step"):
        selective_scan(**make_inputs(*shape), implementation=implementation)


def test_triton_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(scan_fftp, "triton", scan_fftp)
    with pytest.raises(ValueError, match="'triton' runs on a GPU; these tensors are on the CPU"):
        selective_scan(**make_inputs(1, 5, 9, 4), implementation="triton")
    monkeypatch.setattr(scan_fftp, "selective_scan_fn", scan_fftp)
    with pytest.raises(ValueError, match="'mamba_ssm' runs on a GPU; these tensors are on the CPU"):
        selective_scan(**make_inputs(1, 5, 9, 4), implementation="mamba_ssm")


def test_tensors_without_values_have_shapes_and_gradients():
    inputs = {name: tensor.detach().to("meta").requires_grad_() for name, tensor in make_inputs(2, 5, 70, 4).items()}
    results, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True)
    assert (results.shape, last.shape) == ((2, 5, 70), (2, 5, 4))
    results.sum().backward()
    assert all(tensor.grad.shape == tensor.shape for tensor in inputs.values())


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(scan_fftp, "selective_scan_fn", None)
    monkeypatch.setattr(scan_fftp, "triton", None)
    for name, line in (("mamba_ssm", "pip install mamba-ssm"), ("triton", "pip install triton")):
        with pytest.raises(ImportError, match=line):
            selective_scan(**make_inputs(1, 5, 9, 4), implementation=name)
