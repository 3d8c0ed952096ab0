"""A script, not a module: load a model by the Auto classes, without the package, and print what comes out.

`python -I tests/load_model.py NAME`: a folder, or a model of the Hub that HF_ENDPOINT names, holds a classifier and
its tokenizer. With `--train`, the classifier is trained for a step and saved again. It must run under every release of
transformers that the shipped files support.
"""

import argparse
import json
import sys
from importlib.abc import MetaPathFinder

PACKAGE = "modeling_roberta_gru"
TEXTS = ["dreadful music", "splendid plot but slow and long", ""]
LONG_TEXT = " ".join(["the plot was slow but we liked its music more than most"[: 9 + n % 44] for n in range(1000)])
# Not from the tokenizer: each class is to load on its own.
INPUT_IDS = [[0, 11, 12, 13, 14, 15, 2], [0, 16, 17, 18, 2, 1, 1], [0, 2, 1, 1, 1, 1, 1]]
LABELS = [0, 1, 0]


class Refuse(MetaPathFinder):
    def find_spec(self, name, *_):
        if name.split(".")[0] == PACKAGE:
            raise ModuleNotFoundError(f"No module named {name!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--by", nargs="*", choices=LOADERS, default=list(LOADERS), help="what loads it")
    parser.add_argument("--revision")
    parser.add_argument("--input-ids", type=json.loads, default=INPUT_IDS, help="as JSON, padded by 1")
    parser.add_argument("--train", action="store_true", help="train a step, and print the logits after it")
    parser.add_argument("--save-to", help="save the trained model to this folder")
    parser.add_argument("--push-to", help="push the trained model to this repository")
    arguments = parser.parse_args()

    sys.meta_path.insert(0, Refuse())
    try:
        __import__(PACKAGE)
    except ModuleNotFoundError:
        pass
    else:
        sys.exit(f"{PACKAGE} can be imported: this would prove nothing")

    import torch
    import transformers

    torch.manual_seed(0)
    trusted = {"trust_remote_code": True, **({"revision": arguments.revision} if arguments.revision else {})}
    outputs = {"transformers": transformers.__version__}
    for loader in arguments.by:
        outputs |= LOADERS[loader](arguments, trusted)
    if arguments.train:
        outputs["trained_logits"] = train(arguments, trusted)
    print(json.dumps(outputs))


def inputs(arguments):
    import torch

    input_ids = torch.tensor(arguments.input_ids)
    return {"input_ids": input_ids, "attention_mask": (input_ids != 1).long()}


def run(auto_class, arguments, options):
    """Return what a model gives for the inputs."""
    import torch
    import transformers

    model = getattr(transformers, auto_class).from_pretrained(arguments.name, **options)
    with torch.no_grad():
        return model(**inputs(arguments))


def read_config(arguments, options):
    from transformers import AutoConfig

    return {"model_type": AutoConfig.from_pretrained(arguments.name, **options).model_type}


def read_tokenizer(arguments, options):
    from transformers import AutoTokenizer

    return {"tokens": AutoTokenizer.from_pretrained(arguments.name, **options)(TEXTS)["input_ids"]}


def run_encoder(arguments, options):
    return {"summary": run("AutoModel", arguments, options).pooler_output.tolist()}


def run_classifier(arguments, options):
    return {"logits": run("AutoModelForSequenceClassification", arguments, options).logits.tolist()}


def run_half_classifier(arguments, options):
    import torch

    half = {**options, "torch_dtype": torch.bfloat16}  # 4.57 knows no other name
    return {"bfloat16_logits": run("AutoModelForSequenceClassification", arguments, half).logits.tolist()}


def run_token_classifier(arguments, options):
    return {"token_logits": run("AutoModelForTokenClassification", arguments, options).logits.tolist()}


def run_pipeline(arguments, options):
    return {"pipeline": make_pipeline(arguments, options)(TEXTS, top_k=None)}


def read_long_text(arguments, options):
    return {"long": make_pipeline(arguments, options)(LONG_TEXT)[0]}


def make_pipeline(arguments, options):
    from transformers import pipeline

    return pipeline("text-classification", arguments.name, **options, device="cpu")


LOADERS = {
    "AutoConfig": read_config,
    "AutoTokenizer": read_tokenizer,
    "AutoModel": run_encoder,
    "AutoModelForSequenceClassification": run_classifier,
    "AutoModelForSequenceClassification in bfloat16": run_half_classifier,
    "AutoModelForTokenClassification": run_token_classifier,
    "pipeline": run_pipeline,
    "pipeline of a long text": read_long_text,
}


def train(arguments, options):
    """Train a step, save where that is wanted, and return the logits."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    classifier = AutoModelForSequenceClassification.from_pretrained(arguments.name, **options)
    classifier.train()
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1)
    classifier(**inputs(arguments), labels=torch.tensor(LABELS)).loss.backward()
    optimizer.step()
    classifier.eval()
    for part in (classifier, AutoTokenizer.from_pretrained(arguments.name, **options)):
        if arguments.save_to:
            part.save_pretrained(arguments.save_to)
        if arguments.push_to:
            part.push_to_hub(arguments.push_to)
    with torch.no_grad():
        return classifier(**inputs(arguments)).logits.tolist()


if __name__ == "__main__":
    main()
