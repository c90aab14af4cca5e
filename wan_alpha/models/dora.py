"""DoRA whose row norms come from the factors: PEFT's layer without the dense product that it builds in every pass."""

import torch
import torch.nn.functional as F
from peft.tuners.lora.dora import DoraLinearLayer
from peft.tuners.lora.variants import DoraLinearVariant
from torch import nn

_TINY = torch.finfo(torch.float32).tiny


class FactoredDoraLinear(DoraLinearLayer):
    """The magnitude of one DoRA linear layer and the arithmetic that goes with it, in PEFT's place for it.

        y = m * (W + s*B*A) x / ||W + s*B*A|| + bias      (Liu et al. 2024, norms per output row)

    The norm comes from :func:`factored_row_norms` and is a constant to the gradient (their section 4.3). Magnitude and
    norms stay float32 through any ``.to(dtype)``: rounded apart from each other, they would move every output before
    the first step.

    Args:
        base_layer: the frozen linear layer, weight (out, in); its row norms are the first magnitudes. It may become a
            quantised layer later (``models.quantize``), which is multiplied with by calling it.

    Attributes:
        weight: m, (out,) float32, trainable; named as PEFT names it.
        base_norm2: ||W||² per row, (out,) float32; follows a base weight that comes with a ``load_state_dict``.
    """

    def __init__(self, base_layer):
        super().__init__(fan_in_fan_out=False)
        self.register_buffer("base_norm2", squared_row_norms(base_layer.weight), persistent=False)
        self.weight = nn.Parameter(_norms(self.base_norm2))

    def forward(self, x, *, lora_A, lora_B, scaling, base_layer, base_result=None, adapter_name="default"):
        """What PEFT adds to the base layer's output.

            (g - 1) * (base_result - bias) + (g*s*B) A x,   g = m / ||W + s*B*A||

        The gain goes into B's rows and the bias rather than over the activations of the whole clip, and the first term
        stays in base_result's dtype: the sum is rounded to it anyway.

        Args:
            x: (..., in); base_result: the base layer's output on it, (..., out), or None where dropout changed x since.
            lora_A, lora_B: the linear layers of weights A (rank, in) and B (out, rank); scaling: s.
        """
        shift, update = self._shift_and_update(x, lora_A, lora_B, scaling, base_layer, base_result)
        if base_result is None:
            return shift * _without_bias(base_layer, x) + update
        return shift.to(base_result.dtype) * base_result + update

    def adapted(self, x, *, lora_A, lora_B, scaling, base_layer, base_result):
        """The adapted layer's output: base_result plus :meth:`forward`, with fewer passes over the activations."""
        shift, update = self._shift_and_update(x, lora_A, lora_B, scaling, base_layer, base_result)
        return _Stretched.apply(base_result, shift.to(base_result.dtype), update)

    def _shift_and_update(self, x, lora_A, lora_B, scaling, base_layer, base_result):
        """(g - 1, (g*s*B) A x - (g - 1)*bias); the bias is left out where base_result is."""
        with torch.autocast(x.device.type, enabled=False):
            cross = _products(base_layer, lora_A.weight, (x if base_result is None else base_result).dtype)
            norms = _adapted_norms(cross, self.base_norm2, lora_A.weight, lora_B.weight, scaling)
        gain = self.weight / norms
        shift = gain - 1
        hidden = lora_A(x)
        up = ((scaling * gain).unsqueeze(1) * lora_B.weight).to(hidden.dtype)
        has_bias = base_result is not None and base_layer.bias is not None
        return shift, F.linear(hidden, up, (-shift * base_layer.bias).to(hidden.dtype) if has_bias else None)

    def _apply(self, fn, recurse=True):
        def keep_float32(tensor):
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_float32, recurse)


class _Stretched(torch.autograd.Function):
    """base + shift * base + update, rounded to the sum's dtype; the gradient of base comes in one piece, g + shift * g.

    Two passes over a clip's activations fewer than autograd makes of the same sum.
    """

    @staticmethod
    def forward(ctx, base, shift, update):
        ctx.save_for_backward(base, shift)
        return torch.addcmul(base + update, shift, base)

    @staticmethod
    def backward(ctx, gradient):
        base, shift = ctx.saved_tensors
        of_base = torch.addcmul(gradient, shift, gradient) if ctx.needs_input_grad[0] else None
        return of_base, _column_products(gradient, base), gradient


def _column_products(a, b):
    """Sums of a * b over all but the last axis, in float32: (..., n) twice -> (n,)."""
    a, b = a.flatten(0, -2), b.flatten(0, -2)
    # A CPU's sum in another dtype copies all that it adds up first: there by pieces that stay in its cache.
    rows = 64 if a.device.type == "cpu" else max(len(a), 1)
    return sum((a * b).sum(0, dtype=torch.float32) for a, b in zip(a.split(rows), b.split(rows), strict=True))


class _FactoredVariant(DoraLinearVariant):
    """How PEFT's layer comes to its output; with dropout between, by PEFT's own way."""

    @staticmethod
    def forward(module, active_adapter, x, result, **options):
        if module.training and not isinstance(module.lora_dropout[active_adapter], nn.Identity):
            return DoraLinearVariant.forward(module, active_adapter, x, result, **options)
        return module.lora_magnitude_vector[active_adapter].adapted(
            x, lora_A=module.lora_A[active_adapter], lora_B=module.lora_B[active_adapter],
            scaling=module.scaling[active_adapter], base_layer=module.get_base_layer(), base_result=result,
        )  # fmt: skip


def use_factored_dora(model):
    """Put a :class:`FactoredDoraLinear` in the place of PEFT's layer wherever a linear layer has a fresh DoRA."""
    for layer in list(model.modules()):
        magnitudes = getattr(layer, "lora_magnitude_vector", {})
        for name, magnitude in list(magnitudes.items()):
            if type(magnitude) is DoraLinearLayer:
                magnitudes[name] = FactoredDoraLinear(layer.get_base_layer())
                layer.lora_variant[name] = _FactoredVariant()
                layer.register_load_state_dict_pre_hook(_follow_base)


def _follow_base(layer, state_dict, prefix, *_):
    """Before an adapted layer loads a base weight: the norms become that weight's. The layer judges the shapes."""
    weight = state_dict.get(f"{prefix}base_layer.weight")
    if weight is not None and weight.shape == layer.get_base_layer().weight.shape:
        for magnitude in layer.lora_magnitude_vector.values():
            magnitude.base_norm2.copy_(squared_row_norms(weight))


@torch.no_grad()
def factored_row_norms(weight, norm2, down, up, scaling):
    """Row norms of W + s*B*A without that sum: a product with A's few rows instead of a dense one.

        ||W + s*B*A||² = ||W||² + 2s rowsum((W Aᵀ) ∘ B) + s² rowsum((B A Aᵀ) ∘ B)

    W Aᵀ is taken in W's dtype. Over a bfloat16 base that costs the norms 1e-4 of their length at most, far below what
    the base's own rounding does; in float32 they are exact up to rounding.

    Args:
        weight: W, (out, in); norm2: ||W||² per row, (out,) float32, from :func:`squared_row_norms`.
        down: A, (rank, in); up: B, (out, rank); scaling: s.

    Returns:
        (out,) float32, without gradient, never zero: a row that is zero keeps the gain m/norm finite.
    """
    return _adapted_norms(weight @ down.T.to(weight.dtype), norm2, down, up, scaling)


@torch.no_grad()
def _adapted_norms(cross, norm2, down, up, scaling):
    cross, down, up = cross.float(), down.float(), up.float()
    return _norms(norm2 + scaling * ((2 * cross + scaling * (up @ (down @ down.T))) * up).sum(1))


@torch.no_grad()
def squared_row_norms(weight):
    """||W||² per row of a weight (out, in) of any floating dtype: (out,) float32."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return torch.linalg.vector_norm(weight, dim=1, dtype=dtype).float().square()


@torch.no_grad()
def _products(base_layer, down, dtype):
    """W Aᵀ, (out, rank), in W's dtype, or where W is quantised in the one that the layer computes in."""
    if _is_plain(base_layer):
        return base_layer.weight @ down.T.to(base_layer.weight.dtype)
    return _without_bias(base_layer, down.to(dtype)).T


def _without_bias(base_layer, x):
    """x Wᵀ."""
    if _is_plain(base_layer):
        return F.linear(x, base_layer.weight.to(x.dtype))
    return base_layer(x) if base_layer.bias is None else base_layer(x) - base_layer.bias


def _is_plain(layer):
    return type(layer) is nn.Linear


def _norms(norm2):
    return norm2.clamp_min(_TINY).sqrt()
