// The documents of a job, read by rank 0 and told to every rank.

import Files
import Foundation
import RingAttention
import Tiles
import Tokenization

/// The documents of the input on every rank, in portions. All its functions are collective.
package final class DocumentStream {
    /// Documents that follow each other in the input.
    package struct Portion {
        /// How many came before.
        package let first: Int
        package let documents: [Document]
    }

    private let session: Session
    private var source: DocumentSource
    private var count = 0
    /// Documents that are still to be passed over.
    private var skipped = 0

    /// Bytes of input for each rank, after which a portion ends: some batches, so that the last one, which may be
    /// small, costs little.
    private static let portionBytes = 1 << 20

    init(_ input: DocumentInput, _ session: Session) {
        self.session = session
        source = DocumentSource(input)
    }

    /// What comes next, read by rank 0; nil behind the last.
    ///
    /// A portion ends where it is large enough, and where a pipe has no more at the moment.
    package func next() throws -> Portion? { try next(limit: Self.portionBytes * session.transport.size) }

    /// Passes over documents that are done, so that the first to come is number `count`.
    func skip(_ count: Int) {
        self.count = count
        skipped = count
    }

    /// All that is left.
    package func rest() throws -> [Document] { try next(limit: .max)?.documents ?? [] }

    private func next(limit: Int) throws -> Portion? {
        let (monitor, isRest) = (session.monitor, limit == .max)
        let read = Result {
            var read: [Document] = []
            while session.isRoot {
                let documents = try source.next(limit: limit) { try monitor.whileWaiting($0) }
                let passed = min(skipped, documents.count)
                skipped -= passed
                read += documents.dropFirst(passed)
                if documents.isEmpty || !isRest && !read.isEmpty { break }
            }
            return read
        }
        try session.waitForRoot()
        let documents = try tell(session.agree { try read.get() })
        defer { count += documents.count }
        return documents.isEmpty ? nil : Portion(first: count, documents: documents)
    }

    /// Rank 0's documents, on all ranks. True labels stay on rank 0.
    private func tell(_ read: [Document]) throws -> [Document] {
        if session.transport.size == 1 { return read }
        var message = Message()
        for document in read {
            message.write(document.source)
            switch document.content {
            case .text(let text):
                message.write(0)
                message.write(text)
            case .ids(let ids):
                message.write(1)
                message.write(ids)
            }
            message.write(document.pair == nil ? 0 : 1)
            message.write(document.pair ?? "")
        }
        var told = Message(try session.transport.allGather(message.bytes)[0])
        var documents: [Document] = []
        while !told.isAtEnd {
            let source = told.readString()
            let content = told.readInt() == 0 ? Document.Content.text(told.readString()) : .ids(told.readIds())
            let hasPair = told.readInt() == 1
            let pair = told.readString()
            documents.append(Document(source: source, content: content, pair: hasPair ? pair : nil))
        }
        return session.isRoot ? read : documents
    }
}

extension Session {
    /// Waits until rank 0 comes here too, however long that takes, and leaves the processor to others meanwhile: a
    /// collective call would keep it busy. Collective.
    fileprivate func waitForRoot() throws {
        guard transport.size > 1 else { return }
        var mark: UInt8 = isRoot ? 1 : 0
        try withUnsafeMutableBytes(of: &mark) { mark in
            if isRoot {
                let sent = UnsafeRawBufferPointer(mark)
                try transport.exchange(
                    receive: [], send: (1..<transport.size).map { Outgoing(to: Rank($0), pieces: [sent]) })
            } else {
                try transport.exchange(receive: [Incoming(from: Rank(0), pieces: [mark])], send: []) { poll in
                    while mark[0] == 0 {
                        poll()
                        if mark[0] == 0 { Thread.sleep(forTimeInterval: 0.002) }
                    }
                }
            }
        }
    }

    /// The items of all documents, each tokenized by one rank. Collective.
    func corpus(_ documents: [Document], tokenizer: Tokenizer?, _ preparation: Corpus.Preparation) throws -> Corpus {
        var mine: [Corpus.Item] = []
        try agree {
            for number in stride(from: transport.rank.index, to: documents.count, by: transport.size) {
                mine += try Corpus.items(documents[number], number: number, tokenizer: tokenizer, preparation)
                monitor.progress()
            }
        }
        var items = mine
        if transport.size > 1 {
            var message = Message()
            for item in mine {
                for value in [item.document, item.start, item.end, item.isCut ? 1 : 0, item.typeIds == nil ? 0 : 1] {
                    message.write(value)
                }
                message.write(item.ids)
                if let typeIds = item.typeIds { message.write(typeIds) }
                message.write(item.spans.count)
                for span in item.spans {
                    for value in [span.tokens.lowerBound, span.tokens.upperBound, span.start, span.end] {
                        message.write(value)
                    }
                }
            }
            items = []
            for bytes in try transport.allGather(message.bytes) {
                var told = Message(bytes)
                while !told.isAtEnd {
                    let (document, start, end) = (told.readInt(), told.readInt(), told.readInt())
                    let (isCut, hasTypes) = (told.readInt() == 1, told.readInt() == 1)
                    let ids = told.readIds()
                    let typeIds = hasTypes ? told.readIds() : nil
                    let spans = (0..<told.readInt()).map { _ in
                        let (first, last) = (told.readInt(), told.readInt())
                        return (tokens: first..<last, start: told.readInt(), end: told.readInt())
                    }
                    items.append(
                        Corpus.Item(
                            document: document, ids: ids, typeIds: typeIds, start: start, end: end, spans: spans,
                            isCut: isCut))
                }
            }
            // A rank's items are in order; between ranks, documents are dealt out in turn.
            items = items.enumerated().sorted { ($0.element.document, $0.offset) < ($1.element.document, $1.offset) }
                .map(\.element)
        }
        return Corpus(
            items: items, sources: documents.map(\.source),
            texts: documents.map { if case .text(let text) = $0.content { text } else { "" } },
            skippedTokens: preparation.skippedTokens)
    }
}
