"""Times PyTorch at the shapes of the GPU bench and prints JSON lines in its format: peers.py [--cpu] [--list] [PART]...

Needs torch and a GPU. Without torch it prints one line of kind "missing" and succeeds. --list prints the parts. With
--cpu every case runs once at a small shape, without times: it shows that this script works.
"""

import json
import sys
import traceback

PARTS = ["products", "attentions", "output_layer", "rows", "fast_steps"]
ON_CPU = "--cpu" in sys.argv[1:]
WANTED = [word for word in sys.argv[1:] if word != "--cpu"]
if WANTED == ["--list"]:
    print("\n".join(PARTS))
    sys.exit()
if not set(WANTED) <= set(PARTS):
    sys.exit(f"expected --cpu, --list or some of {' '.join(PARTS)}, found {' '.join(WANTED)}")


def missing(what, error):
    print(json.dumps({"kind": "missing", "what": what, "why": f"{type(error).__name__}: {error}"}), flush=True)


try:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
except Exception as error:  # not installed, too old, or broken
    missing("PyTorch", error)
    sys.exit()
if not ON_CPU and not torch.cuda.is_available():
    missing("PyTorch", RuntimeError(f"torch {torch.__version__} finds no CUDA device"))
    sys.exit()
try:
    import triton  # noqa: F401, torch.compile generates code for it
    HAS_COMPILER = True
except Exception as error:
    HAS_COMPILER = ON_CPU
    if not ON_CPU:
        missing("PyTorch compiled", error)

DEVICE = "cpu" if ON_CPU else "cuda"

# Like the bench's clock: the cache is cleared before each call, and slow calls are sampled less often.
SAMPLES, LEAST_SAMPLES, WARM_UP, MOST_MS = 30, 5, 5, 2000.0
FLUSH = None if ON_CPU else torch.empty(64 << 20, dtype=torch.float32, device=DEVICE)

BATCH, LENGTH, HEADS, HEAD_DIM, WINDOW, LATENTS = (2, 24, 2, 8, 7, 3) if ON_CPU else (16, 1024, 8, 64, 256, 8)
WIDTH, HIDDEN, VOCABULARY, ROWS = (16, 40, 61, 20) if ON_CPU else (512, 1376, 50258, 4096)
PITCH = -(-VOCABULARY // 64) * 64  # row length of the logits in memory
TOKENS = BATCH * LENGTH
BF16, F32 = torch.bfloat16, torch.float32


def ways(f):
    """A function as it is and, where there is a compiler, compiled."""
    return [("eager", f), ("compiled", torch.compile(f))] if HAS_COMPILER else [("eager", f)]


def random(*shape, dtype=BF16, std=1.0):
    return (torch.randn(*shape, device=DEVICE, dtype=F32) * std).to(dtype)


def elapsed_ms(call):
    FLUSH.zero_()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def quantiles(call):
    """Milliseconds of a call, once it has been compiled and warmed up."""
    if ON_CPU:
        call()
        return {}
    for _ in range(WARM_UP):
        elapsed_ms(call)
    times = []
    while len(times) < SAMPLES and (len(times) < LEAST_SAMPLES or sum(times) < MOST_MS):
        times.append(elapsed_ms(call))
    times.sort()
    p10, median, p90 = (times[round((len(times) - 1) * share)] for share in (0.1, 0.5, 0.9))
    return {"median_ms": median, "p10_ms": p10, "p90_ms": p90, "samples": len(times)}


def peer(op, case, name, call, dtype="bf16"):
    """Times a call and prints its line, or the reason why it failed."""
    line = {"kind": "peer", "op": op, "case": case, "dtype": dtype, "peer": name}
    try:
        line.update(quantiles(call))
    except Exception as error:  # of a backend or a compiler
        traceback.print_exc()
        line["refused"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    print(json.dumps(line), flush=True)


def products():
    linear = [
        ("qkv", TOKENS, 3 * WIDTH, WIDTH),
        ("projection", TOKENS, WIDTH, WIDTH),
        ("feed_forward_up", TOKENS, 2 * HIDDEN, WIDTH),
        ("feed_forward_down", TOKENS, WIDTH, HIDDEN),
        ("logits", ROWS, PITCH, WIDTH),
        ("one_token", BATCH, 3 * WIDTH, WIDTH),
    ]
    # By default PyTorch computes f32 products in f32, as ours are.
    for name, dtype in (("f32", F32), ("bf16", BF16)):
        for case, m, n, k in linear:
            x, w = random(m, k, dtype=dtype), random(n, k, dtype=dtype)
            peer("matmul", case, "F.linear", lambda: F.linear(x, w), name)
        # Gradients of y = x Wᵀ: dx = dy W, and dW = dyᵀ x, which PyTorch leaves in the type of its factors.
        for case, n, k in [
            ("qkv", 3 * WIDTH, WIDTH),
            ("feed_forward_up", 2 * HIDDEN, WIDTH),
            ("feed_forward_down", WIDTH, HIDDEN),
        ]:
            x, w, dy = random(TOKENS, k, dtype=dtype), random(n, k, dtype=dtype), random(TOKENS, n, dtype=dtype)
            peer("matmul", f"{case}_dx", "matmul", lambda: dy @ w, name)
            peer("matmul", f"{case}_dw", "matmul", lambda: dy.T @ x, name)


def attention(case, cases, q, k, v):
    """Each backend's forward pass, and its backward pass alone: gradients of a result that is kept."""
    for name, backend, mask, is_causal in cases:

        def attend():
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal)

        with torch.no_grad():
            peer("attention", f"fwd_{case}", name, attend)
        leaves = [x.requires_grad_() for x in (q, k, v)]
        dout = random(*q.shape)
        try:
            out = attend()
        except RuntimeError:
            continue  # the forward pass above has printed the reason
        peer("attention", f"bwd_{case}", name, lambda: torch.autograd.grad(out, leaves, dout, retain_graph=True))
        for x in leaves:
            x.requires_grad_(False)


def window_mask():
    row, column = torch.arange(LENGTH, device=DEVICE)[:, None], torch.arange(LENGTH, device=DEVICE)[None, :]
    return (column <= row) & (column > row - WINDOW)


def attentions():
    q, k, v = (random(BATCH, HEADS, LENGTH, HEAD_DIM) for _ in range(3))
    mask = window_mask()
    # Flash takes no mask: it does the full causal triangle, which is more work than the window.
    cases = [
        ("SDPA math", SDPBackend.MATH, mask, False),
        ("SDPA efficient", SDPBackend.EFFICIENT_ATTENTION, mask, False),
        ("SDPA flash, no window", SDPBackend.FLASH_ATTENTION, None, True),
    ]
    attention("window", cases, q, k, v)
    k, v = (random(BATCH, HEADS, LATENTS, HEAD_DIM) for _ in range(2))
    cases = [
        ("SDPA math", SDPBackend.MATH, None, False),
        ("SDPA efficient", SDPBackend.EFFICIENT_ATTENTION, None, False),
        ("SDPA flash", SDPBackend.FLASH_ATTENTION, None, False),
    ]
    attention("latents", cases, q, k, v)


def output_layer():
    def loss(hidden, table, targets):
        return F.cross_entropy(F.linear(hidden, table).float(), targets, reduction="sum")

    targets = torch.randint(VOCABULARY, (ROWS,), device=DEVICE)
    hidden, table = random(ROWS, WIDTH), random(VOCABULARY, WIDTH, std=WIDTH**-0.5)
    for name, run in ways(loss):
        with torch.no_grad():
            peer("cross_entropy", "loss", name, lambda: run(hidden, table, targets))
        hidden.requires_grad_()
        # Loss and gradient together, as ours computes them.
        peer(
            "cross_entropy",
            "loss_and_dh",
            name,
            lambda: torch.autograd.grad(run(hidden, table, targets), hidden),
        )
        hidden.requires_grad_(False)
        table.requires_grad_()
        peer(
            "cross_entropy",
            "bwd_weight",
            name,
            lambda: torch.autograd.grad(run(hidden, table, targets), table),
        )
        table.requires_grad_(False)


def rms_norm(x, weight):
    x = x.float()
    return (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight).to(BF16)


def rotate(x, table):
    """x (B,H,T,D); table holds cosines and sines (T,D/2)."""
    cos, sin = table
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


def rotation(positions):
    frequencies = 10_000.0 ** -(torch.arange(0, HEAD_DIM, 2, device=DEVICE) / HEAD_DIM)
    angles = positions[:, None] * frequencies[None, :]
    return angles.cos(), angles.sin()


def rows():
    x, weight = random(TOKENS, WIDTH), torch.ones(WIDTH, device=DEVICE)
    gate, up = random(TOKENS, HIDDEN), random(TOKENS, HIDDEN)
    swiglu = lambda gate, up: F.silu(gate) * up
    for (name, norm), (_, gated) in zip(ways(rms_norm), ways(swiglu)):
        with torch.no_grad():
            peer("rms_norm", "fwd", name, lambda: norm(x, weight))
            peer("swiglu", "fwd", name, lambda: gated(gate, up))


class Model:
    """The decoder with bf16 weights, tied embeddings, and latents as one more input."""

    def __init__(self, n_layers, n_latents):
        matrix = lambda *shape: random(*shape, std=0.02)
        self.n_layers, self.z = n_layers, n_latents // n_layers
        self.embedding = matrix(VOCABULARY, WIDTH)
        self.norm = torch.ones(WIDTH, device=DEVICE)
        self.layers = [
            {
                "self": [matrix(WIDTH, WIDTH) for _ in range(4)],
                "cross": [matrix(WIDTH, WIDTH) for _ in range(4)],
                "w1": matrix(HIDDEN, WIDTH),
                "w3": matrix(HIDDEN, WIDTH),
                "w2": matrix(WIDTH, HIDDEN),
                "norms": [torch.ones(WIDTH, device=DEVICE) for _ in range(3)],
            }
            for _ in range(n_layers)
        ]
        self.mask = window_mask()
        stride = LENGTH // n_latents
        self.tables = [
            rotation(torch.arange(LENGTH, device=DEVICE)),
            rotation(torch.arange(self.z, device=DEVICE) * stride),
        ]

    def attend(self, weights, x, source, tables, mask):
        wq, wk, wv, wo = weights
        heads = lambda y: y.unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2)
        q = rotate(heads(F.linear(x, wq)), tables[0])
        k = rotate(heads(F.linear(source, wk)), tables[1])
        v = heads(F.linear(source, wv))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return F.linear(out.transpose(1, 2).flatten(-2), wo)

    def bound(self, mu, log_var, noise, tokens, targets):
        z = mu + noise * torch.exp(0.5 * log_var)
        z = z.to(BF16).unflatten(1, (self.n_layers, self.z))
        h = F.embedding(tokens, self.embedding)
        for i, layer in enumerate(self.layers):
            norms = layer["norms"]
            x = rms_norm(h, norms[0])
            h = h + self.attend(layer["self"], x, x, [self.tables[0]] * 2, self.mask)
            x = rms_norm(h, norms[1])
            h = h + self.attend(layer["cross"], x, z[:, i], self.tables, None)
            x = rms_norm(h, norms[2])
            gated = F.silu(F.linear(x, layer["w1"])) * F.linear(x, layer["w3"])
            h = h + F.linear(gated, layer["w2"])
        logits = F.linear(rms_norm(h, self.norm), self.embedding)
        nll = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")
        kl = 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum()
        return nll + kl


def fast_steps():
    """A fast step: the gradient of the bound in the latents, and AdamW on them. Weights take no gradient."""
    tokens, targets = (torch.randint(VOCABULARY, (BATCH, LENGTH), device=DEVICE) for _ in range(2))
    for name, n_layers, n_latents in [("ltm-small", 3, 24), ("ltm-medium", 6, 24), ("ltm-large", 12, 96)]:
        if ON_CPU:
            n_layers, n_latents = 2, 4
        model = Model(n_layers, n_latents)
        mu, log_var, noise = (random(BATCH, n_latents, WIDTH, dtype=F32, std=0.1) for _ in range(3))
        latents = [mu.requires_grad_(), log_var.requires_grad_()]
        adamw = torch.optim.AdamW(latents, lr=0.3, betas=(0.9, 0.999), fused=True)
        for how, bound in ways(model.bound):

            def step():
                adamw.zero_grad(set_to_none=True)
                bound(mu, log_var, noise, tokens, targets).backward()
                adamw.step()

            peer(name, "fast_step", how, step, "mixed")
        del model, adamw
        torch.compiler.reset()
        if ON_CPU:
            return
        torch.cuda.empty_cache()


for part in WANTED or PARTS:
    torch.manual_seed(1)
    globals()[part]()
