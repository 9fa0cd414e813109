/**
 * Words that must not be generated, as token sequences.
 *
 * @module
 */
import type { Tokenizer } from './tokenizer';

/**
 * The token sequences of words, each as it is and, where that differs, with a space before it: as in mid-sentence.
 *
 * @param signal - Ends the search when aborted.
 */
export async function findBadWords(
  tokenizer: Tokenizer,
  words: readonly string[],
  signal?: AbortSignal,
): Promise<Int32Array[]> {
  const encode = (text: string) => tokenizer.encode(text, { addSpecialTokens: false, name: 'badWords', signal });
  const found = await Promise.all(
    words.map(async (word) => {
      const bare = word.trimStart();
      const [plain, spaced] = await Promise.all([encode(bare), encode(` ${bare}`)]);
      return plain.join() === spaced.join() ? [plain] : [plain, spaced];
    }),
  );
  return found.flat().filter((ids) => ids.length > 0);
}
