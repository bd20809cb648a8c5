import Pipelines

let texts = ["A ring has no end.", "A circle is round.", "Tea is at four."]
try Session.run { session in
    let vectors = try Embedder(session, model: CommandLine.arguments[1]).embed(texts)
    if session.isRoot { print(vectors) }
}
