/**
 * The bytes that each token id stands for, out of `tokenizer.json`. The native side turns ids into text with them, token
 * by token, which is why only decoders that work token by token are known.
 *
 * @module
 */
import { ModelFormatError, UnsupportedModelError } from '../errors';

/** Bytes of each token: token i is `bytes[offsets[i] .. offsets[i + 1])`. Ids that no token has are empty. */
export interface Vocabulary {
  readonly bytes: Uint8Array;
  /** One longer than `special`. */
  readonly offsets: Uint32Array;
  /** 1 for special tokens. */
  readonly special: Uint8Array;
  /** Bytes of the longest token. */
  readonly longestToken: number;
}

const MAX_VOCAB_SIZE = 2 ** 21;
const NO_BYTES = new Uint8Array(0);

/** One token on its way from the vocabulary's spelling to bytes. */
type Piece = string | Uint8Array;
type DecodeStep = (piece: Piece) => Piece;

/**
 * Reads the parsed content of `tokenizer.json`.
 *
 * A decoder that strips the beginning of a text (Llama 2 and Mistral: one space) is read as if the text went on: what a
 * model generates continues its prompt, so the space of its first word is kept.
 *
 * @throws ModelFormatError when the content is broken.
 * @throws UnsupportedModelError for a decoder that we do not know.
 */
export function readVocabulary(tokenizer: unknown): Vocabulary {
  const root = asRecord(tokenizer, 'the file');
  const model = asRecord(root['model'], 'model');
  const decode = decoderSteps(root['decoder']);
  const tokens: (Piece | undefined)[] = [];
  for (const [token, id] of modelTokens(model)) {
    tokens[checkId(id, token)] = decode.reduce<Piece>((piece, step) => step(piece), token);
  }
  const special = new Set<number>();
  for (const entry of asList(root['added_tokens'] ?? [], 'added_tokens')) {
    const { id, content, special: isSpecial } = asRecord(entry, 'added_tokens');
    if (typeof content !== 'string') throw broken('added_tokens must have a content');
    // Added tokens stand for what they say, whatever the decoder.
    tokens[checkId(id, content)] = content;
    if (isSpecial === true) special.add(id as number);
  }
  return concatenate(tokens, special);
}

function concatenate(tokens: (Piece | undefined)[], special: Set<number>): Vocabulary {
  const encoder = new TextEncoder();
  const pieces = Array.from(tokens, (piece = NO_BYTES) => (typeof piece === 'string' ? encoder.encode(piece) : piece));
  const offsets = new Uint32Array(pieces.length + 1);
  let longestToken = 1;
  pieces.forEach((piece, id) => {
    offsets[id + 1] = offsets[id]! + piece.length;
    longestToken = Math.max(longestToken, piece.length);
  });
  const bytes = new Uint8Array(offsets[pieces.length] ?? 0);
  pieces.forEach((piece, id) => bytes.set(piece, offsets[id]));
  return { bytes, offsets, special: Uint8Array.from(pieces, (_, id) => Number(special.has(id))), longestToken };
}

/** Pairs of token and id: an object in most models, a list of `[token, score]` in Unigram. */
function modelTokens(model: Record<string, unknown>): Iterable<[string, unknown]> {
  const { vocab } = model;
  if (!Array.isArray(vocab)) return Object.entries(asRecord(vocab, 'model.vocab'));
  return vocab.map((entry: unknown, id) => {
    const token: unknown = Array.isArray(entry) ? entry[0] : undefined;
    if (typeof token !== 'string') throw broken('model.vocab must list pairs of token and score');
    return [token, id];
  });
}

function checkId(id: unknown, token: string): number {
  if (typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < MAX_VOCAB_SIZE) return id;
  throw broken(
    `the id of token ${JSON.stringify(token.slice(0, 60))} must be an integer from 0 to ${MAX_VOCAB_SIZE - 1}`,
  );
}

/** The decoder as steps on single tokens. */
function decoderSteps(decoder: unknown): DecodeStep[] {
  if (decoder === null || decoder === undefined) throw unsupported('none');
  const { type, decoders } = asRecord(decoder, 'decoder');
  if (type !== 'Sequence') return [decoderStep(decoder, false)];
  const list = asList(decoders, 'decoder.decoders');
  const fuse = list.findIndex((entry) => asRecord(entry, 'decoder')['type'] === 'Fuse');
  return list.map((entry, i) => decoderStep(entry, fuse >= 0 && i > fuse));
}

/** @param fused - Whether the step sees the whole text, no longer its tokens. */
function decoderStep(decoder: unknown, fused: boolean): DecodeStep {
  const record = asRecord(decoder, 'decoder');
  const type = String(record['type']);
  if (fused) {
    // Trimming the end would need to know where a text ends; trimming the beginning does not apply, see above.
    if (type === 'Strip' && record['stop'] === 0) return (piece) => piece;
    throw unsupported(`${type} after Fuse`);
  }
  switch (type) {
    case 'ByteLevel':
      return byteLevel;
    case 'ByteFallback':
      return byteFallback;
    case 'Fuse':
      return (piece) => piece;
    case 'Metaspace':
      return replaceAll(record['replacement'], ' ');
    case 'Replace': {
      const pattern = asRecord(record['pattern'], 'decoder.pattern')['String'];
      if (pattern === undefined) throw unsupported('Replace with a regular expression');
      return replaceAll(pattern, record['content']);
    }
    default:
      throw unsupported(type);
  }
}

function replaceAll(pattern: unknown, content: unknown): DecodeStep {
  if (typeof pattern !== 'string' || pattern === '' || typeof content !== 'string') {
    throw broken('the decoder must replace one string by another');
  }
  return (piece) => (typeof piece === 'string' ? piece.replaceAll(pattern, () => content) : piece);
}

/** `<0x0A>` is the byte 10. */
function byteFallback(piece: Piece): Piece {
  const hex = typeof piece === 'string' ? /^<0x([0-9A-Fa-f]{2})>$/.exec(piece)?.[1] : undefined;
  return hex === undefined ? piece : Uint8Array.of(parseInt(hex, 16));
}

/** GPT-2's spelling of bytes: printable ones as themselves, the others as the characters from U+0100 on, in order. */
const BYTE_OF_CHARACTER: ReadonlyMap<string, number> = (() => {
  const printable = (byte: number): boolean =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
  let next = 0x100;
  return new Map(
    Array.from({ length: 256 }, (_, byte) => [String.fromCharCode(printable(byte) ? byte : next++), byte]),
  );
})();

/** A token with a character outside GPT-2's spelling stands for itself, as in the `tokenizers` library. */
function byteLevel(piece: Piece): Piece {
  if (typeof piece !== 'string') return piece;
  const bytes = new Uint8Array(piece.length);
  for (let i = 0; i < piece.length; ++i) {
    const byte = BYTE_OF_CHARACTER.get(piece[i]!);
    if (byte === undefined) return piece;
    bytes[i] = byte;
  }
  return bytes;
}

function asRecord(value: unknown, key: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw broken(`${key} must be an object`);
}

function asList(value: unknown, key: string): unknown[] {
  if (Array.isArray(value)) return value as unknown[];
  throw broken(`${key} must be an array`);
}

function broken(fault: string): ModelFormatError {
  return new ModelFormatError(`tokenizer.json is broken: ${fault}`);
}

function unsupported(decoder: string): UnsupportedModelError {
  return new UnsupportedModelError(`tokenizer.json has a decoder that heddle does not know: ${decoder}`);
}
