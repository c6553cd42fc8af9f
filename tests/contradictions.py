"""Commands whose words are right one by one, and wrong together; and wrong words for Hydra."""

CONTRADICTIONS = """
task=sample
task=evaluate
task=deploy
task=compare
run=x
run=x task=describe
run=x task=forecast
run=x task=compare task.runs=[x]
task=sample run=''
task=compare task.runs=[x,x]
task=compare task.runs=[x] task.greedy=false task.temperatures=[]
task=compare task.runs=[x] task.temperatures=[0]
task=forecast task.tau=600
task=forecast task.points=600
task=forecast task.train_points=996
task=forecast task.horizons=[601]
training.epochs=null
training.epochs=null training.max_steps=0
data.valid_fraction=0.5 data.test_fraction=0.5
data.valid_fraction=1
data=penn_treebank
data=text_files
data=lyrics
data=recall data.batching.length=5
data=recall data/tokenizer=character
data=recall data.append_eos=true
data=recall data.gap=-3
data=recall data.symbols=1
model=ngram evaluation.gradient_steps=5
model=ngram model.hidden_size=8
model=ngram training.dropout_mask=sequence
training.dropout_mask=sentence
model=ngram training.weight_dropout=0.5
training.weight_dropout=1
model=ngram training.word_dropout=0.5
training.word_dropout=-0.1
model=ngram training.activation_regularization=2
model=ngram training.temporal_activation_regularization=1
training.activation_regularization=-2
model=transformer model.bidirectional=true
model=transformer model.heads=3
model=transformer training.weight_dropout=0.5
model=transformer model.context=0
model=lstm model.context=20
training/averaging=emma
training/averaging=ema training.averaging.decay=1
training/averaging=triggered training.averaging.patience=0
model=ngram training/averaging=ema
model.layer_norm=true
model.residual=true
model.last_size=8
model.mogrifier_rank=3
model.mogrifier_rounds=2 model.mogrifier_rank=0
model.layers=2 model.last_size=0
model.layers=2 model.last_size=8 model.residual=true
model=ngram model/softmax=full
model/softmax=mixture model.softmax.components=0
model/softmax=full model.softmax.components=3
model=ngram model.smoothing=laplace model.pseudocount=0
model=ngram evaluation.cache.size=5
model=ngram evaluation.dynamic.learning_rate=1
evaluation.cache.size=5 evaluation.protocol=window
evaluation.mixture=[x,x]
evaluation.mixture=[x] evaluation.mixture_weights=[1]
model=rnn model.forget_gate_bias=1
model=gru model.nonlinearity=relu
model.tie_weights=true model.embedding_size=128
model.tie_weights=true model.one_hot=true model.embedding_size=256
model.tie_weights=true model.embedding_size=256 model.bidirectional=true data/batching=windows
model.bidirectional=true
model.bidirectional=true data/batching=random
model.bidirectional=true data/batching=windows
model.bidirectional=true data/batching=windows evaluation.protocol=document
model.bidirectional=true data/batching=windows evaluation.protocol=last
BOTH_WAYS evaluation.gradient_steps=3
BOTH_WAYS training/truncation=fixed training.truncation.steps=3
BOTH_WAYS training/truncation=random
training.truncation=35
training.truncation.steps=3
optimizer=sgd optimizer.beta1=0.9
optimizer=adam optimizer.momentum=0.9
optimizer.schedule=cosine optimizer.schedule.factor=0.5
optimizer.schedule=step optimizer.schedule.warmup_steps=3
optimizer.schedule=plateau optimizer.schedule.every=3
optimizer.beta1=1
optimizer.learning_rate=0
sampling.top_p=0
sampling.top_p=1.01
sampling.top_k=0
sampling.temperature=0
device=cuda:0
device=gpu
precision=float16
precision=int8x
threads=0
tracking=mlflow tracking.every=0
experiment=lab/lsmt
experiment=lab
experiment=lab/lstm model=nope
"""

HYDRA = """
hydra.foo=1
hydra.run.dri=x
hydra.run=3
hydra.job.num=x
hydra.job.chdir=maybe
hydra.mode=nope
hydra.verbose=[
hydra/launcher=nope
hydra/sweeper=nope
hydra/output=nope
hydra/job_logging=nope
hydra/hydra_logging=nope
hydra/nope=basic
hydra.launcher.n_jobs=2
hydra/launcher=joblib hydra.launcher.n_jobs=x
hydra/launcher=joblib hydra.launcher.nope=1
hydra.sweeper.max_batch_size=x
hydra.sweeper.params=3
hydra.searchpath=[nope://x]
hydra.searchpath=3
hydra.callbacks=3
hydra.callbacks.x.y=3
hydra.run.dir=''
hydra.run.dir=null
hydra.run.dir=${nope}
hydra.output_subdir=[a]
hydra.job.env_set=3
~hydra.callbacks
--cfg
--cfg nonsense
--cfg job --multirun seed=1
--resolve
--package nope
--info nonsense
--nonsense
--experimental-rerun x
--shell-completion
--config-name nope
--config-dir /no/such/folder
--config-path
--config-path=/no/such/folder
-x
-m
-m seed=range(1,2
-m seed=
-m seed=x,y
-m model=lsmt,gru
-m seed=interval(0,1)
-m seed=choice()
-m seed=range(3,1)
-m seed=range(1,3,0)
-m nope=1,2
-m hydra/launcher=nope seed=1,2
-m hydra/launcher=joblib hydra.launcher.n_jobs=x seed=1,2
"""


BOTH_WAYS = "model.bidirectional=true data/batching=windows evaluation.protocol=window"


def commands(lines: str) -> list[tuple[str, ...]]:
    return [
        tuple(line.split()) for line in lines.replace("BOTH_WAYS", BOTH_WAYS).strip().splitlines()
    ]
