"""A script, not a module: load a saved folder by every Auto class, without the package, and print what comes out.

`python -I tests/stranger.py FOLDER RESAVED`: the folder holds a classifier and its tokenizer; after one training step
it is saved again to RESAVED. It must run under every release of transformers that the shipped files support.
"""

import json
import sys
from importlib.abc import MetaPathFinder

PACKAGE = "modeling_roberta_gru"
TEXTS = ["dreadful music", "splendid plot but slow and long", ""]
LONG_TEXT = " ".join(["the plot was slow but we liked its music more than most"[: 9 + n % 44] for n in range(1000)])


class Refuse(MetaPathFinder):
    def find_spec(self, name, *_):
        if name.split(".")[0] == PACKAGE:
            raise ModuleNotFoundError(f"No module named {name!r}")


def main() -> None:
    sys.meta_path.insert(0, Refuse())
    try:
        __import__(PACKAGE)
    except ModuleNotFoundError:
        pass
    else:
        sys.exit(f"{PACKAGE} can be imported: this would prove nothing")

    import torch
    import transformers
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
        AutoTokenizer,
        pipeline,
    )

    folder, resaved = sys.argv[1:]
    trusted = {"trust_remote_code": True}
    config = AutoConfig.from_pretrained(folder, **trusted)
    tokenizer = AutoTokenizer.from_pretrained(folder, **trusted)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False)
    classifier = AutoModelForSequenceClassification.from_pretrained(folder, **trusted)
    with torch.no_grad():
        outputs = {
            "transformers": transformers.__version__,
            "model_type": config.model_type,
            "input_ids": inputs["input_ids"].tolist(),
            "logits": classifier(**inputs).logits.tolist(),
            "summary": AutoModel.from_pretrained(folder, **trusted)(**inputs).pooler_output.tolist(),
        }
        torch.manual_seed(0)
        tokens = AutoModelForTokenClassification.from_pretrained(folder, **trusted)
        outputs["token_logits"] = tokens(**inputs).logits.tolist()
        half = AutoModelForSequenceClassification.from_pretrained(folder, **trusted, torch_dtype=torch.bfloat16)
        outputs["bfloat16_logits"] = half(**inputs).logits.tolist()
    classify = pipeline("text-classification", folder, **trusted, device="cpu")
    outputs["pipeline"] = classify(TEXTS, top_k=None)
    outputs["long"] = classify(LONG_TEXT)[0]

    classifier.train()
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1)
    classifier(**inputs, labels=torch.tensor([0, 1, 0])).loss.backward()
    optimizer.step()
    classifier.eval()
    with torch.no_grad():
        outputs["trained_logits"] = classifier(**inputs).logits.tolist()
    classifier.save_pretrained(resaved)
    tokenizer.save_pretrained(resaved)
    print(json.dumps(outputs))


if __name__ == "__main__":
    main()
