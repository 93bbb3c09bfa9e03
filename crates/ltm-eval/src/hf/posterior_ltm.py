"""The posterior of a text's latents in PyTorch: random numbers, start, fast steps, bounds and prequential scores.

Numbers agree with those of the Rust crates up to rounding, random ones included: a text's noise is a function of the seed
and of the text's number alone (Philox 4x32-10). The posterior may have columns that correlate a layer's latents.
"""

import math
from typing import NamedTuple, Optional

import torch
import torch.nn.functional as F

from .decoder_ltm import Decoder, part

#: The step number of the random keys of evaluations.
EVALUATION = (1 << 64) - 1
#: The largest logarithm of a coupling's scale.
MOST_LOG_SCALE = 2.0
#: The length of the columns that a fit begins with.
COLUMN_LENGTH = 0.5
#: What random numbers are drawn for: "tho" and a digit or letter in ASCII, in the upper half.
PURPOSES = {
    "sequence": "tho0",
    "init_mu": "tho1",
    "init_log_var": "tho2",
    "fit": "tho3",
    "score": "tho4",
    "init_columns": "thoa",
    "fit_columns": "thob",
    "score_columns": "thoc",
}


def words(x):
    """The lower and the upper half of a number of 64 bits."""
    return x & 0xFFFFFFFF, (x >> 32) & 0xFFFFFFFF


def philox(counter, key):
    """Philox 4x32-10 of four counter words, numbers or tensors of them (Salmon et al. 2011)."""
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(10):
        even, odd = 0xD2511F53 * x0, 0xCD9E8D57 * x2
        (even_low, even_high), (odd_low, odd_high) = words(even), words(odd)
        x0, x1, x2, x3 = odd_high ^ x1 ^ k0, odd_low, even_high ^ x3 ^ k1, even_low
        k0, k1 = words(k0 + 0x9E3779B9)[0], words(k1 + 0xBB67AE85)[0]
    return x0, x1, x2, x3


class Key(NamedTuple):
    """What the random numbers of a batch are a function of."""

    seed: int
    step: int
    #: The number of each text of the batch.
    numbers: list

    def normal(self, shape, purpose, index=0, mean=0.0, std=1.0):
        """Normal numbers `(B, *shape)` of draw `index` for a purpose, by the Box–Muller transform."""
        rows = [self.row(number, math.prod(shape), purpose, index) for number in self.numbers]
        return (mean + std * torch.stack(rows)).float().reshape(len(rows), *shape)

    def row(self, number, n, purpose, index):
        stream = lambda purpose: int.from_bytes(PURPOSES[purpose].encode(), "big") << 32
        own = generator(self.seed, stream("sequence"), number)
        low, high, _, _ = philox((0, 0, own[2], own[3]), own[:2])
        k0, k1, h0, h1 = generator(high << 32 | low, stream(purpose) + index, self.step)
        pairs = torch.arange((n + 1) // 2, dtype=torch.int64)
        a, b, c, d = philox((*words(pairs), h0, h1), (k0, k1))
        bits53 = lambda low, high: ((high << 21) | (low >> 11)).double() / (1 << 53)
        radius = torch.sqrt(-2.0 * torch.log(bits53(a, b) + 1.0 / (1 << 53)))
        angle = 2.0 * math.pi * bits53(c, d)
        return torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1).flatten()[:n]


def generator(seed, stream, step):
    """The key and the upper counter words of a stream."""
    return philox((*words(step), *words(stream)), words(seed))


class Noise(NamedTuple):
    """Standard normal noise of one sample of each posterior."""

    #: `(B,L·Z,C)`
    numbers: torch.Tensor
    #: Of the columns, `(B,L,R)`; None without them.
    columns: Optional[torch.Tensor] = None


class Posterior(NamedTuple):
    """`z = mu + exp(log_var/2)·(e + A·f)` with standard normal `e` and `f`."""

    #: Means `(B,L·Z,C)`.
    mu: torch.Tensor
    #: Log-variances `(B,L·Z,C)`.
    log_var: torch.Tensor
    #: `A (B,L,R,Z·C)`; None for independent numbers.
    columns: Optional[torch.Tensor] = None

    def correlated(self, noise):
        """The noise of all numbers `e + A·f`."""
        if self.columns is None:
            return noise.numbers
        moved = (self.columns * noise.columns[..., None]).sum(2)
        return noise.numbers + moved.reshape(noise.numbers.shape)

    def sample(self, noise):
        return self.mu + torch.exp(self.log_var / 2) * self.correlated(noise)

    def squares(self):
        """The squares of each number's row of `A`, `(B,L,Z·C)`."""
        return self.columns.square().sum(2)

    def log_det(self):
        """`log det(I + AᵀA)` of each layer, `(B,L)`."""
        gram = self.columns @ self.columns.transpose(-1, -2)
        return torch.linalg.cholesky(gram + torch.eye(gram.shape[-1]).to(gram)).diagonal(
            dim1=-2, dim2=-1
        ).log().sum(-1) * 2

    def double(self):
        return Posterior(*(None if x is None else x.double() for x in self))


class Inference:
    """Fits and scores of a model's texts. `config` has the sections of a run's configuration."""

    def __init__(self, config, device):
        self.model, self.infer = config["model"], config["infer"]
        self.seed = config["run"]["seed"]
        self.device = device
        self.decoder = Decoder(self.model, self.model["max_seq_len"]).to(device)
        model = self.model
        self.layers = model["n_layers"]
        self.shape = (model["n_latents"], model["dim"])
        #: Numbers of a layer's latents, `Z·C`.
        self.part = model["n_latents"] // self.layers * model["dim"]
        encodes = self.infer["start"] in ("encoder", "given") and model["encoder_width"] > 0
        self.start_kind = {"given": "prior"}.get(self.infer["start"], self.infer["start"])
        self.start_kind = "encoder" if encodes else self.start_kind

    def key(self, numbers, step=EVALUATION, seed=None):
        return Key(self.seed if seed is None else seed, step, list(numbers))

    # Random numbers

    def noise(self, key, purpose, index, rank):
        numbers = key.normal(self.shape, purpose, index).to(self.device)
        if rank == 0:
            return Noise(numbers)
        columns = key.normal((self.layers, rank), f"{purpose}_columns", index)
        return Noise(numbers, columns.to(self.device))

    # The prior

    def couplings(self, weights, layer):
        return [part(weights, f"prior.{layer}.{idx}.") for idx in range(self.model["prior_layers"])]

    def flow(self, weights, noise):
        """Latents `(B,L·Z,C)` of noise, and the logarithm of the scale of each of their numbers."""
        x = noise.reshape(-1, self.layers, self.part)
        latents, scales = [], []
        for layer in range(self.layers):
            halves = list(x[:, layer].chunk(2, dim=-1))
            total = [torch.zeros_like(half) for half in halves]
            for idx, coupling in enumerate(self.couplings(weights, layer)):
                kept, moved = idx % 2, 1 - idx % 2
                log_scale, shift = scale_and_shift(coupling, halves[kept])
                halves[moved] = halves[moved] * log_scale.exp() + shift
                total[moved] = total[moved] + log_scale
            latents.append(torch.cat(halves, -1))
            scales.append(torch.cat(total, -1))
        back = lambda parts: torch.stack(parts, 1).reshape(noise.shape)
        return back(latents), back(scales)

    def unflow(self, weights, z):
        """The noise `(B,L,Z·C)` of latents, and the sum of the logarithms of the scales, `(B,L)`."""
        x = z.reshape(-1, self.layers, self.part)
        noise, scales = [], []
        for layer in range(self.layers):
            halves = list(x[:, layer].chunk(2, dim=-1))
            total = torch.zeros_like(halves[0])
            for idx, coupling in reversed(list(enumerate(self.couplings(weights, layer)))):
                kept, moved = idx % 2, 1 - idx % 2
                log_scale, shift = scale_and_shift(coupling, halves[kept])
                halves[moved] = (halves[moved] - shift) * (-log_scale).exp()
                total = total + log_scale
            noise.append(torch.cat(halves, -1))
            scales.append(total.sum(-1))
        return torch.stack(noise, 1), torch.stack(scales, 1)

    def prior_sample(self, weights, noise):
        """Samples `(B,L·Z,C)` of the prior."""
        if self.model["prior_layers"] == 0:
            return noise
        return self.flow(double(weights, "prior."), noise.double())[0].float()

    def kl(self, weights, q, z):
        """KL of each layer `(B,L)`: in closed form, or for a learned prior by the sample `z`."""
        log_var, more = q.log_var, 0.0
        if q.columns is not None:
            ratio = torch.log1p(q.squares())
            log_var = log_var + ratio.reshape(log_var.shape)
            more = 0.5 * (ratio.sum(-1) - q.log_det())
        if self.model["prior_layers"] == 0:
            kl = 0.5 * (q.mu.square() + torch.expm1(log_var) - log_var)
            return kl.reshape(-1, self.layers, self.part).sum(-1) + more
        u, log_scales = self.unflow(weights, z)
        entropy = 0.5 * log_var.reshape(u.shape) + 0.5
        return (0.5 * u.square() - entropy).sum(-1) + log_scales + more

    def log_ratio(self, weights, q, noise):
        """`log p(z) - log q(z)` at the sample of `noise`, `(B)`, in double precision."""
        q, noise = q.double(), Noise(*(None if x is None else x.double() for x in noise))
        w = q.correlated(noise)
        z = q.mu + w * torch.exp(q.log_var / 2)
        if self.model["prior_layers"] == 0:
            log_p = -0.5 * z.square().sum((1, 2))
        else:
            u, log_scales = self.unflow(double(weights, "prior."), z)
            log_p = -0.5 * u.square().sum((1, 2)) - log_scales.sum(1)
        ratio = log_p + 0.5 * (w.square() + q.log_var).sum((1, 2))
        if q.columns is None:
            return ratio
        gram = q.columns @ q.columns.transpose(-1, -2)
        gram = gram + torch.eye(gram.shape[-1]).to(gram)
        b = (q.columns @ w.reshape(*q.columns.shape[:2], -1, 1)).squeeze(-1)
        explained = (b * torch.linalg.solve(gram, b)).sum(-1)
        return ratio + 0.5 * (q.log_det() - explained).sum(1)

    # The start

    def encode(self, weights, text):
        """What the encoder predicts of a text `(B,T)`."""
        own = part(weights, "encoder.")
        b, t = text.shape
        table = own["tok_embeddings.weight"]
        embedded = F.embedding(text, table)
        nothing = table.new_zeros(b, 1, table.shape[1])
        # The last entry of the table stands for a position without text, such as the one after the text.
        after = table[-1].expand(b, 1, -1)
        before = torch.cat((nothing, embedded), 1)[:, :t]
        after = torch.cat((embedded, after), 1)[:, 1:]
        features = torch.cat((before, embedded, after), -1)
        features = F.relu(F.linear(features, own["features.weight"], own["features.bias"]))
        normed = lambda x, name: x * own[f"{name}.gain"] + own[f"{name}.shift"]
        pooled = normed(features.sum(1), "pooled")
        mixed = pooled + F.relu(F.linear(pooled, own["mix.weight"], own["mix.bias"]))
        mixed = normed(mixed, "mixed")
        mu = normed(F.linear(mixed, own["mu.weight"]), "means")
        log_var = F.linear(mixed, own["log_var.weight"], own["log_var.bias"])
        return Posterior(mu.reshape(b, *self.shape), log_var.reshape(b, *self.shape))

    def start(self, weights, text, key, kind=None):
        """The posterior that a fit begins with."""
        infer, b = self.infer, len(key.numbers)
        kind = kind or self.start_kind
        if kind == "encoder":
            return self.encode(weights, text)
        if kind == "drawn":
            mu = key.normal(self.shape, "init_mu", 0, 0.0, infer["init_mu_std"])
            spread = infer["init_log_var_mean"], infer["init_log_var_std"]
            log_var = key.normal(self.shape, "init_log_var", 0, *spread)
            return Posterior(mu.to(self.device), log_var.to(self.device))
        zeros = torch.zeros(b, *self.shape, device=self.device)
        if self.model["prior_layers"] == 0:
            return Posterior(zeros, zeros)
        mean, scales = self.flow(double(weights, "prior."), zeros.double())
        return Posterior(mean.float(), (2 * scales).float())

    # The fit

    def rates(self):
        infer = self.infer
        rate = infer["lr"] if infer.get("lr_end") is None else infer["lr_end"]
        for step in range(infer["steps"]):
            if infer["schedule"] == "constant":
                yield rate
            else:
                last = rate * infer["final_ratio"]
                yield last + (rate - last) * (1 + math.cos(math.pi * step / infer["steps"])) / 2

    def fit(self, weights, tokens, targets, key):
        """The posterior of texts `(B,T)` after all fast steps, fitted to `targets`, the tokens to predict."""
        # Also where the caller takes no gradients.
        with torch.inference_mode(False), torch.enable_grad():
            weights = {name: weight.detach() for name, weight in weights.items()}
            tokens, targets = tokens.clone(), targets.clone()
            q = self.start(weights, targets, key)
            return self.steps(weights, tokens, targets, key, q)

    def steps(self, weights, tokens, targets, key, q):
        infer, b = self.infer, len(key.numbers)
        rank = infer["rank"] if infer["steps"] > 0 else 0
        q = Posterior(q.mu.detach().clone(), q.log_var.detach().clone())
        noise = self.noise(key, "fit", 0, rank)
        if rank > 0:
            shape, std = (self.layers, rank, self.part), COLUMN_LENGTH / math.sqrt(self.part)
            columns = key.normal(shape, "init_columns", 0, 0.0, std)
            q = q._replace(columns=columns.to(self.device))
        parameters = [x for x in q if x is not None]
        moments = [(torch.zeros_like(x), torch.zeros_like(x)) for x in parameters]
        stop = EarlyStop(infer["stop_window"], b)
        for step, rate in enumerate(self.rates()):
            for x in parameters:
                x.requires_grad_()
            now = Posterior(*parameters)
            z = now.sample(noise)
            nll = self.token_nll(weights, tokens, targets, z).sum(1)
            kl = self.kl(weights, now, z).sum(1)
            gradients = torch.autograd.grad((nll + kl).sum(), parameters)
            parameters = [x.detach() for x in parameters]
            rates = [rate, rate, rate / math.sqrt(self.part)]
            deviation = torch.exp(parameters[1] / 2)
            for at, (x, g) in enumerate(zip(parameters, gradients)):
                if at == 0 and infer["units"] == "posterior":
                    moved = self.adamw(torch.zeros_like(x), deviation * g, moments[at], step, rates[at])
                    parameters[at] = x + deviation * moved
                else:
                    parameters[at] = self.adamw(x, g, moments[at], step, rates[at])
            if stop.after((nll + kl).detach().double(), parameters):
                break
            if infer["noise"] == "fresh":
                noise = self.noise(key, "fit", step + 1, rank)
        return Posterior(*stop.restored(parameters))

    def adamw(self, x, g, moments, step, rate):
        """One step of AdamW; its moments change in place."""
        m, v = moments
        beta1, beta2 = self.infer["beta1"], self.infer["beta2"]
        m += (1 - beta1) * (g - m)
        v.mul_(beta2).add_((1 - beta2) * g * g)
        root = v.sqrt() / math.sqrt(1 - beta2 ** (step + 1)) + self.infer["eps"]
        keep = 1 - rate * self.infer["weight_decay"]
        return keep * x - rate / (1 - beta1 ** (step + 1)) * m / root

    # Scores

    def token_nll(self, weights, tokens, targets, z):
        """NLL of each target `(B,T)` at latents; 0 where it is -1."""
        logits = self.decoder.logits(weights, tokens, z)
        nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none")
        return nll.reshape(targets.shape)

    def elbo(self, weights, tokens, targets, key, samples):
        """The negative ELBO of each text by fresh samples of its fitted posterior, its NLL and its KL."""
        q = self.fit(weights, tokens, targets, key)
        rank = 0 if q.columns is None else q.columns.shape[2]
        nll, ratio = [], []
        for index in range(samples):
            noise = self.noise(key, "score", index, rank)
            nll.append(self.token_nll(weights, tokens, targets, q.sample(noise)).double().sum(1))
            ratio.append(self.log_ratio(weights, q, noise))
        nll = torch.stack(nll).mean(0)
        if self.model["prior_layers"] == 0:
            kl = self.kl(weights, q.double(), None).sum(1)
        else:
            kl = -torch.stack(ratio).mean(0)
        return nll + kl, nll, kl

    def blocks(self, weights, tokens, key, stride, samples):
        """Prequential prediction: each block's range of positions, with samples of latents `(B,L·Z,C)` that are fitted to
        the tokens before it alone.
        """
        b, t = tokens.shape
        for block, start in enumerate(range(0, t, stride)):
            known = tokens[:, 1 : start + 1]
            if start > 0:
                q = self.fit(weights, tokens[:, :start], known, key)
            else:
                q = self.start(weights, known, key, kind=None if self.start_kind == "encoder" else "prior")
            rank = 0 if q.columns is None else q.columns.shape[2]

            def draw(index):
                noise = self.noise(key, "score", block * samples + index, rank)
                if start == 0 and self.start_kind != "encoder":
                    return self.prior_sample(weights, noise.numbers)
                return q.sample(noise)

            yield start, min(start + stride, t), map(draw, range(samples))

    def log_probs(self, weights, tokens, key, stride, samples):
        """The log-probabilities `(B,T,V)` of the token after each position, whose sum over a text's tokens is the
        prequential score: those of the mixture of a block's samples, given the block's earlier tokens.
        """
        found = []
        for start, end, latents in self.blocks(weights, tokens, key, stride, samples):
            total, weight = None, None
            for z in latents:
                logits = self.decoder.logits(weights, tokens[:, :end], z)[:, start:]
                each = F.log_softmax(logits.float(), -1)
                # Of the block's tokens before each position, by this sample.
                known = each[:, :-1].gather(-1, tokens[:, start + 1 : end, None]).squeeze(-1)
                known = F.pad(known.cumsum(1), (1, 0))
                each = each + known[..., None]
                total = each if total is None else torch.logaddexp(total, each)
                weight = known if weight is None else torch.logaddexp(weight, known)
            found.append(total - weight[..., None])
        return torch.cat(found, 1)

    def prequential(self, weights, tokens, targets, key, stride, samples):
        """The prequential score of each text, in nats."""
        nats = torch.zeros(tokens.shape[0], dtype=torch.float64, device=self.device)
        for start, end, latents in self.blocks(weights, tokens, key, stride, samples):
            of = lambda z: self.token_nll(weights, tokens[:, :end], targets[:, :end], z)[:, start:]
            nll = torch.stack([of(z).double().sum(1) for z in latents])
            nats -= torch.logsumexp(-nll, 0) - math.log(samples)
        return nats


class EarlyStop:
    """Keeps the posterior of a text whose mean bound over a window of steps is no lower than over the one before."""

    def __init__(self, window, b):
        self.window, self.steps = window, 0
        self.sums = torch.zeros(b, dtype=torch.float64)
        self.before = torch.full((b,), math.inf, dtype=torch.float64)
        self.stopped = torch.zeros(b, dtype=torch.bool)
        self.kept = None

    def after(self, bounds, parameters):
        """Whether all have stopped after a step with these bounds before it, which led to these parameters."""
        if self.window == 0:
            return False
        self.kept = self.kept or [x.clone() for x in parameters]
        self.sums += bounds.cpu()
        self.steps += 1
        if self.steps < self.window:
            return False
        stops = ~self.stopped & (self.sums >= self.before)
        for kept, x in zip(self.kept, parameters):
            kept[stops.to(x.device)] = x[stops.to(x.device)]
        self.stopped |= stops
        self.before, self.sums = self.sums, torch.zeros_like(self.sums)
        self.steps = 0
        return bool(self.stopped.all())

    def restored(self, parameters):
        """The parameters, with those that were kept in their places."""
        if self.kept is None:
            return parameters
        rows = lambda x: self.stopped.to(x.device).reshape(-1, *[1] * (x.dim() - 1))
        return [torch.where(rows(x), kept, x) for kept, x in zip(self.kept, parameters)]


def double(weights, prefix):
    """The weights whose names begin with `prefix` in double precision."""
    return {name: w.double() for name, w in weights.items() if name.startswith(prefix)}


def scale_and_shift(coupling, kept):
    """The logarithm of the scale of a coupling's other half, and its shift (Dinh et al. 2017)."""
    hidden = torch.tanh(F.linear(kept, coupling["hidden.weight"], coupling["hidden.bias"]))
    log_scale, shift = F.linear(hidden, coupling["out.weight"], coupling["out.bias"]).chunk(2, -1)
    return MOST_LOG_SCALE * torch.tanh(log_scale / MOST_LOG_SCALE), shift
