"""BERT: a Transformer encoder over word pieces, and heads for it. Devlin et al. 2019.

Modules and parameters have the names of Hugging Face's transformers, so that its files load as they are.
"""

from collections import namedtuple

from .. import ops
from ..tensor import Tensor, tensor
from . import functional as F
from . import init
from .bert_files import ACTIVATIONS, Pretrained
from .containers import ModuleList
from .dropout import Dropout
from .embedding import Embedding
from .linear import Linear
from .module import Module, new_parameter
from .normalize import LayerNorm

# last_hidden_state (N, T, H); pooler_output (N, H), or None without a pooler; hidden_states: what goes into
# the first layer and what comes out of each; attentions: for each layer (N, heads, T, T), if asked for
BertOutput = namedtuple(
    "BertOutput", ["last_hidden_state", "pooler_output", "hidden_states", "attentions"]
)


class BertEmbeddings(Module):
    """Pieces, their places and segments as vectors, added up: integers (N, T) twice -> (N, T, H)."""

    def __init__(self, config):
        c = config
        self.word_embeddings = Embedding(c.vocab_size, c.hidden_size, c.pad_token_id)
        self.position_embeddings = Embedding(c.max_position_embeddings, c.hidden_size)
        self.token_type_embeddings = Embedding(c.type_vocab_size, c.hidden_size)
        self.LayerNorm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.dropout = Dropout(c.hidden_dropout_prob)

    def forward(self, input_ids, token_type_ids=None):
        length = input_ids.shape[1]
        x = self.word_embeddings(input_ids) + self.position_embeddings.weight[:length]
        if token_type_ids is None:
            x = x + self.token_type_embeddings.weight[0]
        else:
            x = x + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.LayerNorm(x))


class BertSelfAttention(Module):
    """Each place looks at all places, with several heads: (N, T, H) -> (N, T, H)."""

    def __init__(self, config):
        size = config.hidden_size
        self.heads, self.p = config.num_attention_heads, config.attention_probs_dropout_prob
        self.query, self.key, self.value = (Linear(size, size) for _ in range(3))

    def forward(self, x, seen=None, need_weights=False):
        """seen: bools (N, 1, 1, T), False for padding, or None. -> ((N, T, H), weights or None)."""
        q, k, v = (self._split(layer(x)) for layer in (self.query, self.key, self.value))
        p = self.p if self.training else 0.0
        weights = None
        if need_weights:
            weights = F.attention_weights(q, k, seen)
            y = ops.matmul(F.dropout(weights, p), v)
        else:
            y = F.scaled_dot_product_attention(q, k, v, seen, p)
        return y.transpose(0, 2, 1, 3).reshape(x.shape), weights

    def _split(self, x):
        """(N, T, H) -> (N, heads, T, H / heads)."""
        n, t, size = x.shape
        return x.reshape((n, t, self.heads, size // self.heads)).transpose(0, 2, 1, 3)


class BertResidual(Module):
    """A dense layer, added to what went around it, and normalised: (N, T, I), (N, T, H) -> (N, T, H)."""

    def __init__(self, config, in_features):
        self.dense = Linear(in_features, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, x, around):
        return self.LayerNorm(self.dropout(self.dense(x)) + around)


class BertAttention(Module):
    """Self-attention with its residual."""

    def __init__(self, config):
        self.self = BertSelfAttention(config)
        self.output = BertResidual(config, config.hidden_size)

    def forward(self, x, seen, need_weights):
        y, weights = self.self(x, seen, need_weights)
        return self.output(y, x), weights


class BertDense(Module):
    """A dense layer and its activation."""

    def __init__(self, config, out_features):
        self.dense = Linear(config.hidden_size, out_features)
        self.hidden_act = config.hidden_act

    def forward(self, x):
        return ACTIVATIONS[self.hidden_act](self.dense(x))


class BertLayer(Module):
    """Attention, then a dense network of two layers for each place: (N, T, H) -> (N, T, H)."""

    def __init__(self, config):
        self.attention = BertAttention(config)
        self.intermediate = BertDense(config, config.intermediate_size)
        self.output = BertResidual(config, config.intermediate_size)

    def forward(self, x, seen, need_weights):
        x, weights = self.attention(x, seen, need_weights)
        return self.output(self.intermediate(x), x), weights


class BertEncoder(Module):
    """The layers, one after the other; -> (states before and after each, weights of each)."""

    def __init__(self, config):
        self.layer = ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x, seen, need_weights):
        states, weights = [x], []
        for layer in self.layer:
            x, w = layer(x, seen, need_weights)
            states.append(x)
            weights.append(w)
        return states, weights


class BertPooler(Module):
    """The state of the first piece, [CLS], through a dense layer and tanh: (N, T, H) -> (N, H)."""

    def __init__(self, config):
        self.dense = Linear(config.hidden_size, config.hidden_size)

    def forward(self, x):
        return F.tanh(self.dense(x[:, 0]))


class BertModel(Pretrained):
    """The encoder: numbers of word pieces (N, T) -> a BertOutput.

    input_ids; attention_mask: 1 where there is text, 0 for padding; token_type_ids: 0 or 1, the segment of
    each piece: integers (N, T), arrays or Tensors, as data.WordPiece gives them. output_attentions: also
    return what each head looks at; slower. pooler: whether to have one.

        bert = nn.BertModel(nn.BertConfig(vocab_size=8000, hidden_size=128, num_attention_heads=4))
        bert = nn.BertModel.from_pretrained("bert-base-uncased/")         # a folder of files
        batch = bert.tokenizer(["a stirring film"])
        bert.eval()(**batch).last_hidden_state                             # (1, 6, 768)

    Raises ValueError for ids of another shape or outside the vocabulary, or too many for the positions.
    """

    inside = ""

    def __init__(self, config, pooler=True):
        self.config = config
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config) if pooler else None
        self.apply(lambda module: _draw(module, config.initializer_range))

    @classmethod
    def _for(cls, config, read):
        return cls(config, pooler=any(name.startswith("pooler.") for name in read))

    def forward(self, input_ids, attention_mask=None, token_type_ids=None, output_attentions=False):
        like = self.embeddings.word_embeddings.weight
        ids, mask, segments = (
            x if x is None or isinstance(x, Tensor) else tensor(x, backend=like.backend)
            for x in (input_ids, attention_mask, token_type_ids)
        )
        longest = self.config.max_position_embeddings
        if ids.ndim != 2 or not 1 <= ids.shape[1] <= longest:
            raise ValueError(
                f"{type(self).__name__}: input_ids must be (N, T) with T from 1 to {longest}; got {ids.shape}"
            )
        for name, x in (("attention_mask", mask), ("token_type_ids", segments)):
            if x is not None and x.shape != ids.shape:
                raise ValueError(
                    f"{type(self).__name__}: {name} must be {ids.shape}, as input_ids; got {x.shape}"
                )
        seen = None if mask is None else (mask != 0).reshape((ids.shape[0], 1, 1, ids.shape[1]))
        states, weights = self.encoder(self.embeddings(ids, segments), seen, output_attentions)
        pooled = None if self.pooler is None else self.pooler(states[-1])
        return BertOutput(
            states[-1], pooled, tuple(states), tuple(weights) if output_attentions else None
        )


class BertForMaskedLM(Pretrained):
    """A BERT that says which piece stands at each place: (N, T) -> scores (N, T, vocab_size).

    positions: bools (N, T); then the scores of those places alone, (K, vocab_size), row by row: the
    matrix of the vocabulary is the largest. It is that of the embeddings, transposed. Called as BertModel.

        scores = net(ids, mask, positions=labels >= 0)
        F.cross_entropy(scores, labels[labels >= 0]).backward()
    """

    new = ("cls.",)

    def __init__(self, config):
        self.config = config
        self.bert = BertModel(config, pooler=False)
        self.cls = BertPredictions(config)

    def forward(self, input_ids, attention_mask=None, token_type_ids=None, positions=None):
        x = self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state
        if positions is not None:
            x = x[positions]
        return self.cls(x, self.bert.embeddings.word_embeddings.weight)


class BertPredictions(Module):
    """The head of BertForMaskedLM: (..., H) and the table of the embeddings -> (..., vocab_size)."""

    def __init__(self, config):
        self.predictions = _Predictions(config)
        self.apply(lambda module: _draw(module, config.initializer_range))

    def forward(self, x, table):
        return self.predictions(x, table)


class _Predictions(Module):
    def __init__(self, config):
        self.transform = _Transform(config)
        self.bias = new_parameter(config.vocab_size)

    def forward(self, x, table):
        return F.linear(self.transform(x), table, self.bias)


class _Transform(BertDense):
    def __init__(self, config):
        super().__init__(config, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x):
        return self.LayerNorm(super().forward(x))


class BertForSequenceClassification(Pretrained):
    """A BERT that sorts texts into classes: (N, T) -> scores (N, num_labels). Called as BertModel.

    Dropout and a dense layer on the pooled state of [CLS].
    """

    new = ("bert.pooler.", "classifier.")

    def __init__(self, config):
        p = config.classifier_dropout
        self.config = config
        self.bert = BertModel(config)
        self.dropout = Dropout(config.hidden_dropout_prob if p is None else p)
        self.classifier = Linear(config.hidden_size, config.num_labels)
        _draw(self.classifier, config.initializer_range)

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        pooled = self.bert(input_ids, attention_mask, token_type_ids).pooler_output
        return self.classifier(self.dropout(pooled))


def _draw(module, std):
    """New weights as BERT's authors draw them: normal, biases of 0."""
    if isinstance(module, Linear | Embedding):
        init.normal_(module.weight, std=std)
    if isinstance(module, Embedding) and module.padding_idx is not None:
        module.weight.data[module.padding_idx] = 0
    if isinstance(module, Linear):
        init.zeros_(module.bias)
