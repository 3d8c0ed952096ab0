"""transformers' own common tests of models and configurations, run on ours.

They are not in its wheel: the source distribution of the installed release is fetched by pip, once, into a cache.
`COMMON_SUITE=all` runs all 16 combinations of summary, direction and number of layers instead of four.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
import transformers

from modeling_roberta_gru.configuration_roberta_gru import SUMMARIES

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "roberta-gru"

# Every summary, both ways of reading, one layer and two.
FEW = [("last", False, 1), ("mean", True, 2), ("max", False, 2), ("attention", True, 1)]
ALL = [(summary, both, layers) for summary in SUMMARIES for both in (False, True) for layers in (1, 2)]

# What the common tests import and the source distribution lacks; none of it tests a model like ours.
ABSENT = {
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": (
        "config_common_kwargs = {'return_dict': False, 'output_hidden_states': True, 'output_attentions': True,\n"
        "    'dtype': 'float16', 'chunk_size_feed_forward': 5, 'architectures': ['RobertaGRUModel'],\n"
        "    'id2label': {0: 'label'}, 'label2id': {'label': '0'}, 'problem_type': 'regression'}\n"
    ),
}


def fetch_source(release: str) -> Path:
    """Return transformers' source distribution of this release, from the cache or fetched by pip."""
    archive = CACHE / f"transformers-{release}.tar.gz"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        options = ["--quiet", "--no-deps", "--no-binary", "transformers", "--dest", str(CACHE)]
        command = [sys.executable, "-m", "pip", "download", *options, f"transformers=={release}"]
        outcome = subprocess.run(command, capture_output=True, text=True)
        if outcome.returncode:
            pytest.skip(f"transformers' source cannot be fetched: {outcome.stderr.strip().splitlines()[-1]}")
    return archive


def lay_out(archive: Path, folder: Path) -> Path:
    """Unpack the common tests, add what they lack, and put our tester among them; return its path."""
    with tarfile.open(archive) as source:
        source.extractall(folder, filter="data")
    tests = next(folder.iterdir()) / "tests"
    tester = tests / "models" / "roberta_gru" / "test_modeling_roberta_gru.py"
    for place, text in {**ABSENT, str(tester.relative_to(tests)): ""}.items():
        path = tests / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for parent in path.relative_to(tests.parent).parents[:-1]:
            (tests.parent / parent / "__init__.py").touch()
    shutil.copy(Path(__file__).with_name("common_model_tester.py"), tester)
    return tester


def run_tests(tester: Path, variants: list[tuple[str, bool, int]]) -> ElementTree.Element:
    """Run the common tests in a process of their own; return pytest's report."""
    report = tester.with_name("report.xml")
    fields = [
        {"summary": summary, "gru_bidirectional": both, "num_gru_layers": layers} for summary, both, layers in variants
    ]
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "COMMON_TESTS_OF": json.dumps(fields), "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    options = ["--quiet", "-p", "no:cacheprovider", "-p", "no:randomly", "--junit-xml", str(report)]
    command = [sys.executable, "-m", "pytest", *options, str(tester)]
    subprocess.run(command, cwd=tester.parents[3], env=environment, capture_output=True, text=True)
    return ElementTree.parse(report).getroot()


@pytest.mark.slow
def test_transformers_common_tests_pass(tmp_path, capsys):
    variants = ALL if os.environ.get("COMMON_SUITE") == "all" else FEW
    tester = lay_out(fetch_source(transformers.__version__), tmp_path)
    cases = list(run_tests(tester, variants).iter("testcase"))
    skipped = [case for case in cases if case.find("skipped") is not None]
    broken = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    num_passed = len(cases) - len(skipped) - len(broken)
    reasons = Counter(re.sub(r"\s+", " ", case.find("skipped").get("message", "")) for case in skipped)
    with capsys.disabled():
        print(f"\ntransformers {transformers.__version__}, {len(variants)} variants of RoBERTa-GRU, 3 classes each")
        print(f"{num_passed} passed, {len(broken)} failed, {len(skipped)} skipped")
        for reason, number in reasons.most_common():
            print(f"{number:6d}  {reason}")
    failures = {f"{case.get('classname').split('.')[-1]}.{case.get('name')}" for case in broken}
    assert failures == set()
    assert num_passed >= 90 * len(variants)  # that they ran at all
