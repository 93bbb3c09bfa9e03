"""Compares exported models with the numbers of `ltm` and of recorded fixtures; called by `tests/hf.rs`.

`check.py fixture FILE FOLDER` writes a fixture's weights, configuration and a tokenizer, for `ltm import`.
`check.py weights FILE MODEL` compares an exported fixture with its recorded values.
`check.py run CASE` compares an exported run with what `ltm` computed: CASE is a JSON file.
`check.py rolling MODEL SAMPLES` and `check.py choice MODEL SAMPLES` compare log-likelihoods that lm-evaluation-harness has
taken with the model's own.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

#: The largest relative difference of two numbers that are to agree.
CLOSE = 2e-5


def agree(what, found, expected):
    """Refuses numbers of which one differs by more than the largest of them allows."""
    found, expected = (torch.as_tensor(x).double() for x in (found, expected))
    assert found.shape == expected.shape, f"{what}: shapes {found.shape} and {expected.shape}"
    scale = expected.abs().max().item()
    difference = (found - expected).abs().max().item()
    # Not `>`, which NaN would pass.
    assert difference <= CLOSE * scale, f"{what}: {difference / scale:.2g} off, at most {CLOSE}"
    print(f"{what}: {difference / max(scale, 1e-300):.1g}")


def load(folder):
    # Seconds, which a call that loads no model need not take.
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    return model.eval(), AutoTokenizer.from_pretrained(folder, trust_remote_code=True)


def recorded(path):
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
        return config, {key: file.get_tensor(key) for key in file.keys()}


def fixture(path, folder):
    config, tensors = recorded(path)
    folder = Path(folder)
    weights = {k.removeprefix("param."): v for k, v in tensors.items() if k.startswith("param.")}
    # As a compiled module names them.
    save_file({f"_orig_mod.{name}": w for name, w in weights.items()}, folder / "weights.safetensors")
    vocab = {f"w{i}": i for i in range(config["vocab_size"] - 1)} | {
        "<|endoftext|>": config["vocab_size"] - 1
    }
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "none"}
    text = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"}}
    (folder / "tokenizer.json").write_text(json.dumps(text | {"model": model}))
    extents = ["dim", "n_layers", "n_heads", "n_kv_heads", "max_seq_len", "n_latents", "ffn_hidden"]
    lines = [f"{key} = {config[key]}" for key in extents]
    lines += [f"window = {config['window_size']}", f"norm_eps = {config['norm_eps']}"]
    lines += [f"rope_theta = {float(config['rope_theta'])}"]
    lines += ["[infer]", "noise = 'fixed'", "weight_decay = 0.01", "lr_end = 0.34"]
    (folder / "model.toml").write_text("\n".join(["[model]", *lines, "[train]", "steps = 9"]))


def weights(path, folder):
    model, tokenizer = load(folder)
    config, tensors = recorded(path)
    name, inference, weights = Path(path).stem, model.inference, model.weights
    tokens, targets = tensors["tokens"].long(), tensors["targets"].long()
    posterior, noise = (sys.modules[type(inference).__module__].__dict__[x] for x in ("Posterior", "Noise"))
    q, noise = posterior(tensors["mu0"], tensors["log_var0"]), noise(tensors["eps"])
    z = q.sample(noise)
    with torch.no_grad():
        agree(f"{name}: logits", inference.decoder.logits(weights, tokens, z), tensors["logits"])
        agree(f"{name}: NLL", inference.token_nll(weights, tokens, targets, z).sum(1), tensors["nll0"])
        agree(f"{name}: KL", inference.kl(weights, q, z).sum(1), tensors["kl0"])
    inference.rates = lambda: iter(config["fast_lrs"])
    inference.noise = lambda *_: noise
    key = inference.key(range(len(tokens)))
    detached = {name: weight.detach() for name, weight in weights.items()}
    fitted = inference.steps(detached, tokens, targets, key, q)
    agree(f"{name}: mu after 16 fast steps", fitted.mu, tensors["mu_step16"])
    agree(f"{name}: log_var after 16 fast steps", fitted.log_var, tensors["log_var_step16"])


def run(path):
    case = json.loads(Path(path).read_text())
    model, tokenizer = load(case["model"])
    name = Path(case["model"]).name
    stride, samples = case["stride"], case["samples"]
    lines = [json.loads(line) for line in Path(case["scores"]).read_text().splitlines()]
    assert len(lines) == len(case["documents"]), f"{len(lines)} scored documents"
    found = {key: [] for key in ("elbo", "kl", "prequential")}
    expected = {key: [] for key in found}
    for line, text in zip(lines, case["documents"]):
        ids = tokenizer(text).input_ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text, tokenizer.decode(ids)
        ids = torch.tensor([ids + [tokenizer.eos_token_id]])
        assert ids.shape[1] - 1 == line["tokens"], f"{ids.shape[1] - 1} tokens, not {line['tokens']}"
        numbers, scores = [line["index"]], line["scores"]
        if model.n_latents:
            elbo, nll, kl = model.elbo(ids, samples, numbers)
            agree("the terms' sum", nll + kl, elbo)
            found["elbo"].append(elbo.item())
            expected["elbo"].append(scores[f"elbo:{samples}"]["nats"])
            if case["closed_form"]:
                found["kl"].append(kl.item())
                expected["kl"].append(line["kl"])
        nats = model.prequential(ids, stride, samples, numbers).item()
        protocol = f"prequential:{stride}:{samples}" if model.n_latents else "autoregressive"
        found["prequential"].append(nats)
        expected["prequential"].append(scores[protocol]["nats"])
        # Log-probabilities add up to the score and are those of a distribution.
        with torch.inference_mode():
            logits = model(ids).logits
        agree(f"{name}: probabilities", logits.exp().sum(-1), torch.ones(logits.shape[:2]))
        total = -logits[:, :-1].gather(-1, ids[:, 1:, None]).double().sum()
        agree(f"{name}: their sum", total, model.prequential(ids).sum())
    for key, numbers in found.items():
        if numbers:
            agree(f"{name}: {key} of each document", numbers, expected[key])
    if case["encoded"]:
        tensors = load_file(case["encoded"])
        ids = tokenizer(case["prompt"], return_tensors="pt").input_ids
        with torch.no_grad():
            text = ids[:, 1:]
            q = model.inference.encode(model.weights, text)
        agree(f"{name}: encoder's means", q.mu[0], tensors["mu"])
        agree(f"{name}: encoder's log-variances", q.log_var[0], tensors["log_var"])
    ids = tokenizer(case["prompt"], return_tensors="pt").input_ids
    out = model.generate(ids, max_new_tokens=case["max_tokens"], do_sample=False)
    text = tokenizer.decode(out[0], skip_special_tokens=True)
    assert text == case["greedy"], f"{name}: greedy text {text!r}, expected {case['greedy']!r}"
    # A prompt's text does not depend on its neighbours and its padding.
    tokenizer.padding_side = "left"
    both = tokenizer([case["prompt"], case["documents"][0]], return_tensors="pt", padding=True)
    out = model.generate(**both, max_new_tokens=case["max_tokens"], do_sample=False)
    text = tokenizer.decode(out[0], skip_special_tokens=True)
    assert text == case["greedy"], f"{name}: {text!r} beside another text"
    model.save_pretrained(case["saved"])
    tokenizer.save_pretrained(case["saved"])


def samples(path):
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    assert lines, f"no samples in {path}"
    return lines


def rolling(folder, path):
    model, tokenizer = load(folder)
    for line in samples(path):
        ids = tokenizer(line["target"], return_tensors="pt").input_ids
        agree("rolling log-likelihood", -float(line["filtered_resps"][0]), model.prequential(ids)[0])


def choice(folder, path):
    model, tokenizer = load(folder)
    for line in samples(path):
        for asked, answer in zip(line["arguments"].values(), line["filtered_resps"]):
            context = len(tokenizer(asked["arg_0"]).input_ids)
            ids = tokenizer(asked["arg_0"] + asked["arg_1"], return_tensors="pt").input_ids
            with torch.inference_mode():
                logits = model(ids).logits[:, context - 1 : -1]
            found = logits.gather(-1, ids[:, context:, None]).double().sum()
            agree("log-likelihood of a choice", float(answer[0]), found)


torch.manual_seed(0)
verbs = {"fixture": fixture, "weights": weights, "run": run, "rolling": rolling, "choice": choice}
verbs[sys.argv[1]](*sys.argv[2:])
