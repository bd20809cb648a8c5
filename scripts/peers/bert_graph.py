"""BERT-shaped graphs for ONNX Runtime, out of the com.microsoft operators that its own optimiser fuses to."""


class Graph:
    """The nodes and weights of a graph that is being written.

    weight: given a tensor's name in a checkpoint and its shape there, gives a float32 array of it.
    """

    def __init__(self, weight):
        self.weight, self.nodes, self.weights = weight, [], []

    def tensor(self, name, *shape):
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(self.weight(name, *shape), name))
        return name

    def apply(self, operator, *inputs, **attributes):
        from onnx import helper

        domain = "" if operator in ("MatMul", "Add") else "com.microsoft"
        output = "value%d" % len(self.nodes)
        self.nodes.append(helper.make_node(operator, list(inputs), [output], domain=domain, **attributes))
        return output

    def product(self, states, name, inputs, outputs):
        from onnx import numpy_helper

        # Checkpoints store (outputs, inputs), and MatMul takes the transpose.
        array = self.weight(name + ".weight", outputs, inputs).T.copy()
        self.weights.append(numpy_helper.from_array(array, name + ".weight"))
        return self.apply("MatMul", states, name + ".weight")

    def dense(self, states, name, inputs, outputs):
        return self.apply("Add", self.product(states, name, inputs, outputs), self.tensor(name + ".bias", outputs))

    def dense_and_norm(self, states, residual, name, inputs, outputs):
        norm = [self.tensor("%s.LayerNorm.%s" % (name, part), outputs) for part in ("weight", "bias")]
        product = self.product(states, name + ".dense", inputs, outputs)
        bias = self.tensor(name + ".dense.bias", outputs)
        return self.apply("SkipLayerNormalization", product, residual, *norm, bias, epsilon=1e-12)

    def embeddings(self, ids, segments, words, positions, hidden):
        """Rows from int32 ids and segments, (batch, n) each."""
        tables = [self.tensor("embeddings.%s_embeddings.weight" % name, count, hidden)
                  for name, count in (("word", words), ("position", positions), ("token_type", 2))]
        norm = [self.tensor("embeddings.LayerNorm." + part, hidden) for part in ("weight", "bias")]
        rows = self.apply("EmbedLayerNormalization", ids, segments, *tables, *norm, epsilon=1e-12)
        # Its second output must be there; what it means nobody reads.
        self.nodes[-1].output.append("lengths")
        return rows

    def encoder(self, states, hidden, layers, heads, inner, mask=None):
        """The layers over (batch, n, hidden); mask: int32 (batch, n), 0 for what is padding."""
        for layer in range(layers):
            name = "encoder.layer.%d." % layer
            projections = [self.dense(states, name + "attention.self." + part, hidden, hidden) for part in ("query", "key", "value")]
            # An empty name stands for an input that is left out, here the bias.
            attended = self.apply("MultiHeadAttention", *projections, *(["", mask] if mask else []), num_heads=heads)
            states = self.dense_and_norm(attended, states, name + "attention.output", hidden, hidden)
            inputs = self.product(states, name + "intermediate.dense", hidden, inner)
            widened = self.apply("BiasGelu", inputs, self.tensor(name + "intermediate.dense.bias", inner))
            states = self.dense_and_norm(widened, states, name + "output", inner, hidden)
        return states


def session(nodes, weights, inputs, result, threads):
    """An ONNX Runtime session over nodes of ONNX and com.microsoft operators; inputs: their types and shapes, by name."""
    import numpy
    import onnxruntime
    from onnx import TensorProto, helper

    described = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(numpy.dtype(kind)), shape)
                 for name, (kind, shape) in inputs.items()]
    output = helper.make_tensor_value_info(result, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "graph", described, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)])
    model.ir_version = 9
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

