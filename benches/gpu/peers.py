"""What PyTorch does at the shapes of the GPU bench, as lines of JSON in its format. Needs torch and a GPU."""

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

TOKENS = 16 * 1024
SAMPLES, WARM_UP = 30, 5
FLUSH = torch.empty(64 << 20, dtype=torch.float32, device="cuda")


def random(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def time(op, case, flops, call):
    times = []
    try:
        for i in range(WARM_UP + SAMPLES):
            FLUSH.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            if i >= WARM_UP:
                times.append(start.elapsed_time(end))
    except RuntimeError as error:
        # A backend may refuse a mask or a shape: that is its answer.
        print(f'{{"op":"{op}","case":"{case}","refused":"{type(error).__name__}"}}', flush=True)
        return
    times.sort()
    p10, median, p90 = (times[round((SAMPLES - 1) * share)] for share in (0.1, 0.5, 0.9))
    print(
        f'{{"op":"{op}","case":"{case}","dtype":"bf16","median_ms":{median:.5f},"p10_ms":{p10:.5f},'
        f'"p90_ms":{p90:.5f},"tflop_s":{flops / median / 1e9:.3f}}}',
        flush=True,
    )


torch.manual_seed(1)
for case, m, n, k in [
    ("qkv", TOKENS, 1536, 512),
    ("projection", TOKENS, 512, 512),
    ("feed_forward_up", TOKENS, 2752, 512),
    ("feed_forward_down", TOKENS, 512, 1376),
    ("logits", 4096, 50258, 512),
]:
    x, w = random(m, k), random(n, k)
    time("matmul", case, 2 * m * n * k, lambda: F.linear(x, w))

b, t, h, d, window = 16, 1024, 8, 64, 256
q, k, v = (random(b, h, t, d) for _ in range(3))
row, column = torch.arange(t, device="cuda")[:, None], torch.arange(t, device="cuda")[None, :]
mask = (column <= row) & (column > row - window)
useful = 4 * b * h * d * (window * (window + 1) // 2 + (t - window) * window)
for name, backend, mask_or_none in [
    ("math_window", SDPBackend.MATH, mask),
    ("efficient_window", SDPBackend.EFFICIENT_ATTENTION, mask),
    ("flash_full_causal", SDPBackend.FLASH_ATTENTION, None),
]:

    def attend(backend=backend, mask_or_none=mask_or_none):
        with sdpa_kernel(backend):
            F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask_or_none, is_causal=mask_or_none is None
            )

    # Flash takes no mask: it does the full causal triangle, and the rate counts what a window needs.
    time("self_attention", name, useful, attend)

rows, width, vocabulary = 4096, 512, 50258
hidden, table = random(rows, width).requires_grad_(), random(vocabulary, width)
targets = torch.randint(vocabulary, (rows,), device="cuda")


@torch.compile
def loss():
    return F.cross_entropy(F.linear(hidden, table).float(), targets, reduction="sum")


time(
    "cross_entropy",
    "compiled_loss_and_dh",
    4 * rows * width * vocabulary,
    lambda: torch.autograd.grad(loss(), hidden),
)
