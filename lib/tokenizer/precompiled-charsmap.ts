/**
 * The map of characters that SentencePiece compiles into `tokenizer.json`.
 *
 * @module
 */

/**
 * What is wrong with a `precompiled_charsmap`, or null. It is base64 of a length in bytes, a double-array trie of so many,
 * and the texts that its leaves point to. The `tokenizers` package follows it without looking, and an index beyond the end
 * ends the process: so every step that a text could lead to is taken here first.
 */
export function charsmapFault(charsmap: unknown): string | null {
  if (typeof charsmap !== 'string') return 'must be a string';
  const bytes = Buffer.from(charsmap, 'base64');
  if (bytes.toString('base64') !== charsmap) return 'must be base64';
  const trieBytes = bytes.length < 4 ? -1 : bytes.readUInt32LE(0);
  if (trieBytes < 4 || trieBytes % 4 !== 0 || trieBytes > bytes.length - 4) return 'must hold a trie';
  const texts = bytes.subarray(4 + trieBytes);
  if (!isUtf8(texts)) return 'must hold texts in UTF-8';
  const trie = Uint32Array.from({ length: trieBytes / 4 }, (_, i) => bytes.readUInt32LE(4 + 4 * i));
  return walksWithin(trie, texts) ? null : 'must hold a trie that stays within its bounds';
}

/** Follows every byte from every node that can be reached. */
function walksWithin(trie: Uint32Array, texts: Uint8Array): boolean {
  const seen = new Uint8Array(trie.length);
  const nodes = [offsetOf(trie[0]!)];
  for (let node = nodes.pop(); node !== undefined; node = nodes.pop()) {
    for (let byte = 1; byte < 256; ++byte) {
      const at = node ^ byte;
      if (at >= trie.length) return false;
      const unit = trie[at]!;
      if (labelOf(unit) !== byte || seen[at] === 1) continue;
      seen[at] = 1;
      const next = at ^ offsetOf(unit);
      if (hasLeaf(unit) && !(next < trie.length && isStartOfText(valueOf(trie[next]!), texts))) return false;
      nodes.push(next);
    }
  }
  return true;
}

// A unit of a darts-clone double array, as SentencePiece writes it.
const hasLeaf = (unit: number): boolean => ((unit >>> 8) & 1) === 1;
const valueOf = (unit: number): number => unit & 0x7fffffff;
const labelOf = (unit: number): number => (unit & 0x800000ff) >>> 0;
const offsetOf = (unit: number): number => ((unit >>> 10) << ((unit & 0x200) >>> 6)) >>> 0;

function isStartOfText(index: number, texts: Uint8Array): boolean {
  const isContinuation = (texts[index] ?? 0) >> 6 === 0b10;
  return index <= texts.length && !isContinuation;
}

function isUtf8(bytes: Uint8Array): boolean {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}
