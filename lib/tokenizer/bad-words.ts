/**
 * Words that must not be generated, as token sequences.
 *
 * @module
 */
import type { Tokenizer } from './tokenizer';

/**
 * The token sequences of words, each as it is and with a space before it, as in vLLM (`SamplingParams.bad_words`): the
 * form with a space counts only when it differs in its first token alone.
 */
export async function findBadWords(tokenizer: Tokenizer, words: readonly string[]): Promise<Int32Array[]> {
  const encode = (text: string) => tokenizer.encode(text, { addSpecialTokens: false, name: 'badWords' });
  const found = await Promise.all(
    words.map(async (word) => {
      const bare = word.trimStart();
      const [plain, spaced] = await Promise.all([encode(bare), encode(` ${bare}`)]);
      return spaced.length === plain.length && spaced[0] !== plain[0] ? [plain, spaced] : [plain];
    }),
  );
  return found.flat().filter((ids) => ids.length > 0);
}
