import Pipelines

let texts = ["A ring has no end.", "A circle is round.", "Tea is at four."]
let vectors = try Session.run { try Embedder($0, model: CommandLine.arguments[1]).embed(texts) }
print(vectors)
