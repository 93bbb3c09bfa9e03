"""The openai package and lm-evaluation-harness against a server of `ltm serve`: check.py ADDRESS EXPECTED.json."""

import json
import math
import sys

import lm_eval
import openai
from lm_eval.tasks import TaskManager

address, expected = sys.argv[1], json.load(open(sys.argv[2]))
client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def complete(**request):
    return client.completions.create(**{"model": "latents", "max_tokens": 8, "seed": 1, **request})


def check_openai():
    prompt = expected["first"]
    assert [model.id for model in client.models.list()] == ["latents", "plain"]
    whole = complete(prompt=prompt)
    assert whole.choices[0].finish_reason in ("stop", "length"), whole
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    # A seed, a stream and a batch give the same text.
    assert complete(prompt=prompt).choices[0].text == whole.choices[0].text
    chunks = list(complete(prompt=prompt, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage and not chunks[-1].choices
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1] if chunk.choices[0].finish_reason] == [
        whole.choices[0].finish_reason
    ]
    ids = client.post("../tokenize", cast_to=object, body={"model": "latents", "prompt": prompt})["tokens"]
    many = complete(prompt=[ids, ids[:3]], n=2)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    assert many.choices[0].text == whole.choices[0].text
    word = whole.choices[0].text.split()[2]
    stopped = complete(prompt=prompt, stop=[word])
    assert stopped.choices[0].text == whole.choices[0].text.split(word)[0] and stopped.choices[0].finish_reason == "stop"
    scored = complete(prompt=ids, echo=True, logprobs=2, max_tokens=1)
    logprobs = scored.choices[0].logprobs
    assert len(logprobs.token_logprobs) == len(ids) + 1 and logprobs.token_logprobs[0] is None
    for request, name in [({"best_of": 3}, "best_of"), ({"temperature": -1}, "temperature")]:
        try:
            complete(prompt=prompt, **request)
        except openai.BadRequestError as error:
            assert error.body["param"] == name, error
        else:
            raise AssertionError(name)
    try:
        complete(prompt="the " * 4000)
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded", error
    print("openai", openai.__version__, "agrees")


def task(name, **more):
    files = {"data_files": expected["passages"]}
    return {"task": name, "dataset_path": "json", "dataset_kwargs": files, "test_split": "train", **more}


def evaluate(model, tasks):
    # A vocabulary that is closed has no tokens for the word by which the tokenizer is otherwise looked for.
    arguments = f"base_url={address}/v1/completions,model={model},num_concurrent=4,max_length=32,batch_size=1"
    arguments += ",tokenizer_backend=remote"
    return lm_eval.simple_evaluate(
        model="local-completions", model_args=arguments, tasks=tasks, task_manager=TaskManager(), log_samples=True
    )


def check_harness():
    cut = "{{text.split(' ')[:-1] | join(' ')}}"
    last_word = task(
        "last_word",
        output_type="loglikelihood",
        doc_to_text=cut,
        doc_to_target="{{' ' + text.split(' ')[-1]}}",
        metric_list=[{"metric": "perplexity"}, {"metric": "acc"}],
    )
    choice = task(
        "choice",
        output_type="multiple_choice",
        doc_to_text=cut,
        doc_to_choice="{{[text.split(' ')[-1], 'sunny', 'the']}}",
        doc_to_target=0,
        metric_list=[{"metric": "acc"}],
    )
    writes = task(
        "writes",
        output_type="generate_until",
        doc_to_text=cut,
        doc_to_target="{{text}}",
        generation_kwargs={"until": ["."], "max_gen_toks": 4},
        metric_list=[{"metric": "exact_match"}],
    )
    plain = evaluate("plain", [last_word])
    found = plain["results"]["last_word"]
    theirs = expected["last_words"]["lambada"]
    mean = sum(sample["resps"][0][0][0] for sample in plain["samples"]["last_word"]) / 100
    assert math.isclose(mean, -theirs["nats_per_word"], abs_tol=1e-4), (mean, theirs)
    assert abs(found["acc,none"] - theirs["accuracy"]) < 1e-9, (found, theirs)
    latents = evaluate("latents@prequential-4", [last_word, choice, writes])
    assert latents["results"]["choice"]["alias"] == "choice"
    assert len(latents["samples"]["writes"]) == 100
    # A whole text with the end of its document, the log-probability of its first token among the parts.
    end = client.completions.create(
        model="latents@prequential-4",
        prompt="<|endoftext|>" + expected["first"] + "<|endoftext|>",
        max_tokens=0,
        logprobs=1,
        echo=True,
    ).choices[0]
    total = -sum(end.logprobs.token_logprobs[1:])
    score = expected["whole"]["prequential:4:8"]
    theirs = score["nats_per_token"] * score["tokens"]
    assert math.isclose(total, theirs, abs_tol=1e-4), (total, theirs)
    print("lm-eval", lm_eval.__version__, "agrees")


check_openai()
check_harness()
