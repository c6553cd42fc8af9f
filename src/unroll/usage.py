"""What ``unroll --help`` prints."""

from __future__ import annotations

import textwrap

from unroll.folders import groups, options

HELP = """\
Unroll: train, score and sample recurrent language models. One command line is one experiment.

usage: unroll [group=option ...] [key=value ...]
       unroll -m group=option,option key=value,value ...    one run for each combination

Groups (folders of conf/) and their options:
{groups}

Examples:
  unroll model=gru data/batching=sequential training.epochs=3
  unroll -m model=rnn,lstm,gru model.hidden_size=64,128
  unroll -m hydra/sweeper=optuna 'optimizer.learning_rate=tag(log,interval(1e-3,3e-2))'
  unroll -m hydra/launcher=joblib hydra.launcher.n_jobs=2 seed=1,2,3
  unroll task=sample run=latest sampling.prefix="the prime minister"
  unroll task=evaluate run=latest evaluation.protocol=window
  unroll task=describe data=text_files data.path=book.txt
  unroll task=compare task.runs=[ID,ID]
  unroll task=deploy run=latest
  unroll task=forecast task.forecaster=gru

Every key of a config with its value:  unroll model=gru --cfg job
Hydra's own flags:                     unroll --hydra-help"""


def usage() -> str:
    """How to use the command, with the config groups and their options."""
    width = max(map(len, groups()))
    listed = (
        textwrap.fill(
            ", ".join(options(group)),
            width=100,
            initial_indent=f"  {group:{width}}  ",
            subsequent_indent=" " * (width + 4),
            break_on_hyphens=False,
        )
        for group in groups()
    )
    return HELP.format(groups="\n".join(listed))
